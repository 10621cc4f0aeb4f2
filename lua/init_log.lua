#!lua flags=allow-oom
--[[ init_log — return the mesh's timeline; start one if the version, the timeline or the last log entry is missing.

  KEYS   version   string  {mesh}:version
         timeline  string  {mesh}:timeline
         log       stream  {mesh}:log
  ARGV   new_timeline_id  text, a random id for a new timeline
         log_length       integer, entries the log stores
  REPLY  ok <version> <timeline>        the mesh has a timeline
         created <version> <timeline>   a new timeline was started
  WRITES version timeline log
  EMITS  new_timeline log_initialized | nothing
  COST   O(1)
]]
--@include now_ms
--@include begin_timeline
local version, timeline, log = unpack(KEYS)
local new_timeline_id, log_length = unpack(ARGV)

local current, id = redis.call('GET', version), redis.call('GET', timeline)
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if current and id and last and last[1] == current .. '-0' then
  return { 'ok', current, id }
end
local options = { id = new_timeline_id, min_version = 0, log_length = log_length, reason = 'log_initialized' }
return { 'created', begin_timeline(version, timeline, log, now_ms(), options), new_timeline_id }
