#!lua flags=allow-oom
--[[ invalidate_timeline — end a timeline whose log lost an entry that a replica has read; its readers list again.

  KEYS   version   string  {mesh}:version
         timeline  string  {mesh}:timeline
         log       stream  {mesh}:log
  ARGV   expected_timeline  text, the timeline that the caller follows
         lost_version       integer, the version of an entry that is missing or differs
  REPLY  invalidated      version was raised, timeline and log were deleted; the next init_log starts a new timeline
         other_timeline   the timeline was replaced or lost already; nothing was written
         trimmed          the log starts after the entry: only old entries are missing; nothing was written
  WRITES version timeline log
  EMITS  nothing
  COST   O(1)
]]
--@include to_decimal
--@include last_lost_version
local version, timeline, log = unpack(KEYS)
local expected_timeline, lost_version = unpack(ARGV)

if redis.call('GET', timeline) ~= expected_timeline then
  return { 'other_timeline' }
end
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if not first or tonumber(string.match(first[1], '^%d+')) > tonumber(lost_version) then
  return { 'trimmed' }
end

local last_known = math.max(tonumber(redis.call('GET', version)) or 0, tonumber(lost_version))
redis.call('SET', version, to_decimal(last_lost_version(last_known)))
redis.call('DEL', timeline)
redis.call('UNLINK', log)
return { 'invalidated' }
