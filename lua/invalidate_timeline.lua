#!lua flags=allow-oom
--[[ sever — give up a history whose log lost what somebody has seen, so that whoever saw it must list again.

  KEYS   version  string  {mesh}:version
         history  string  {mesh}:history
         log      stream  {mesh}:log
  ARGV   known    text, the history that the caller has followed
         seen     integer, the version of an entry that is no longer there, or reads otherwise by now
  REPLY  severed         version is far above seen, history and log are gone; the next opening begins anew
         other_history   somebody gave it up already, or the store forgot
         trimmed         the log only begins later: nothing is lost that was not old
  WRITES version history log
  EMITS  nothing
  COST   O(1)
]]
--@include text
local version, history, log = unpack(KEYS)
local known, seen = unpack(ARGV)

if redis.call('GET', history) ~= known then
  return { 'other_history' }
end
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if not first or tonumber(string.match(first[1], '^%d+')) > tonumber(seen) then
  return { 'trimmed' }
end

-- Others may have seen later entries that are lost, too: a minute of one thousand changes a second.
redis.call('SET', version, text(math.max(tonumber(redis.call('GET', version)) or 0, tonumber(seen)) + 60000))
redis.call('DEL', history)
redis.call('UNLINK', log)
return { 'severed' }
