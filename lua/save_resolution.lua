#!lua flags=allow-oom
--[[ save_resolution — store how an agent's dependencies were resolved, unless the newest entry is the same.

  KEYS   resolutions  list  {mesh}:resolutions:<id>
  ARGV   digest       text, identifies the result
         entry        JSON, opaque here
         max_entries  integer, entries stored for one agent
         ttl          integer, ms without a new entry until the list is deleted
  REPLY  saved       the entry was added
         unchanged   the newest entry has this digest; nothing was written
  WRITES resolutions
  EMITS  nothing
  COST   O(1)
]]
local resolutions = unpack(KEYS)
local digest, entry, max_entries, ttl = unpack(ARGV)

local newest = redis.call('LINDEX', resolutions, 0)
if newest and string.sub(newest, 1, #digest + 1) == digest .. ' ' then
  return { 'unchanged' }
end
redis.call('LPUSH', resolutions, digest .. ' ' .. entry)
redis.call('LTRIM', resolutions, 0, max_entries - 1)
redis.call('PEXPIRE', resolutions, ttl)
return { 'saved' }
