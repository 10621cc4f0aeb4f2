#!lua flags=allow-oom
--[[ trace — keep how an agent's dependencies were resolved, unless that is what was kept last.

  KEYS   trace  list  {mesh}:trace:<id>
  ARGV   digest  text, what was resolved
         entry   JSON, opaque here
         keep    integer, entries an agent's trace holds
         life    integer, ms without a new entry until it is gone
  REPLY  kept    it is the newest entry now
         known   the newest one has this digest already; nothing was written
  WRITES trace
  EMITS  nothing
  COST   O(1)
]]
local trace = unpack(KEYS)
local digest, entry, keep, life = unpack(ARGV)

local newest = redis.call('LINDEX', trace, 0)
if newest and string.sub(newest, 1, #digest + 1) == digest .. ' ' then
  return { 'known' }
end
redis.call('LPUSH', trace, digest .. ' ' .. entry)
redis.call('LTRIM', trace, 0, keep - 1)
redis.call('PEXPIRE', trace, life)
return { 'kept' }
