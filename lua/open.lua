#!lua flags=allow-oom
--[[ open — make sure the mesh has a history: an id, a version, and a log that ends at that version.

  KEYS   version  string  {mesh}:version
         history  string  {mesh}:history
         log      stream  {mesh}:log
  ARGV   fresh    text, a random id for the case that a new history begins
         keep     integer, entries the log keeps
  REPLY  ok <version> <history>      it had one
         begun <version> <history>   something of it was missing; a new history begins
  WRITES version history log
  EMITS  begin opened | nothing
  COST   O(1)
]]
--@include clock
--@include text
local version, history, log = unpack(KEYS)
local fresh, keep = unpack(ARGV)

local at, id = redis.call('GET', version), redis.call('GET', history)
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if at and id and last and last[1] == at .. '-0' then
  return { 'ok', at, id }
end

-- Above the log's last entry too: a log that outlived its version must not refuse what comes next.
local now, next = now_ms(), redis.call('INCR', version)
local begun = math.max(next, now, last and tonumber(string.match(last[1], '^%d+')) + 1 or 0)
redis.call('XADD', log, 'MAXLEN', '~', keep, text(begun) .. '-0', 'kind', 'begin', 'reason', 'opened', 'prev', text(next - 1))
redis.call('SET', version, text(begun))
redis.call('SET', history, fresh)
return { 'begun', text(begun), fresh }
