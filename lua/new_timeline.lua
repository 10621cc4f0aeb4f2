#!lua flags=allow-oom
--[[ restart — begin a new history, so that every replica fills its cache anew and every watch lists again.

  KEYS   version  string  {mesh}:version
         history  string  {mesh}:history
         log      stream  {mesh}:log
  ARGV   fresh    text, a random id
         keep     integer, entries the log keeps
         least    integer, a version the history begins above
  REPLY  begun <version>   the first version of the new history
  WRITES version history log
  EMITS  begin restarted
  COST   O(1)
]]
--@include clock
--@include begin
local version, history, log = unpack(KEYS)
local fresh, keep, least = unpack(ARGV)

local new = { id = fresh, least = tonumber(least), keep = keep, reason = 'restarted' }
return { 'begun', begin_history(version, history, log, now_ms(), new) }
