#!lua flags=allow-oom
--[[ pulse — note that Redis is reachable for this replica.

  KEYS   pulse   string  {mesh}:pulse
         outage  string  {mesh}:outage
  ARGV   none
  REPLY  ok <now_ms>
  WRITES pulse outage
  EMITS  nothing
  COST   O(1)
]]
--@include clock
--@include text
--@include pulse
local pulse, outage = unpack(KEYS)

local now = now_ms()
touch_pulse(pulse, outage, now)
return { 'ok', text(now) }
