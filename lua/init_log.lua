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
--@include begin
local version, history, log = unpack(KEYS)
local fresh, keep = unpack(ARGV)

local at, id = redis.call('GET', version), redis.call('GET', history)
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if at and id and last and last[1] == at .. '-0' then
  return { 'ok', at, id }
end
local new = { id = fresh, least = 0, keep = keep, reason = 'opened' }
return { 'begun', begin_history(version, history, log, now_ms(), new), fresh }
