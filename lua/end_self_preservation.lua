#!lua flags=allow-oom
--[[ end_self_preservation — end self-preservation now: the next sweep degrades or expires all overdue agents.

  KEYS   self_preservation  hash  {mesh}:self_preservation
  ARGV   none
  REPLY  ended <since>   it was active since this time
         not_active      it is not active; nothing was written
  WRITES self_preservation
  EMITS  nothing
  COST   O(1)
]]
--@include now_ms
--@include to_decimal
local self_preservation = unpack(KEYS)

local now = now_ms()
local since, until_ms, ended = unpack(redis.call('HMGET', self_preservation, 'since', 'until', 'ended'))
if not until_ms or ended or tonumber(until_ms) <= now then
  return { 'not_active' }
end
redis.call('HSET', self_preservation, 'ended', to_decimal(now))
return { 'ended', since }
