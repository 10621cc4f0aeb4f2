#!lua flags=allow-oom
--[[ pause — stop handing out jobs, in the whole fleet, or go on.

  KEYS   paused  string  {mesh}:paused
  ARGV   on      1 to stop, 0 to go on
  REPLY  ok      it is as asked, whether it was before or not
  WRITES paused
  EMITS  nothing
  COST   O(1)
]]
local paused = unpack(KEYS)
local on = unpack(ARGV)

if on == '1' then
  redis.call('SET', paused, 1)
else
  redis.call('DEL', paused)
end
return { 'ok' }
