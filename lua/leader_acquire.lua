#!lua flags=allow-oom
--[[ leader_acquire — become the leader if there is none, or if the lock is still the expired one.

  KEYS   leader  string  {mesh}:leader
         epoch   string  {mesh}:epoch
  ARGV   holder        JSON that identifies the caller; opaque here
         expired_lock  the lock that did not change for a whole lease, '' for none
  REPLY  acquired <epoch> <lock>   the caller leads under this epoch
         held <lock>               there is a leader; its current lock
  WRITES leader epoch
  EMITS  nothing
  COST   O(1)
]]
--@include now_ms
--@include to_decimal
local leader, epoch = unpack(KEYS)
local holder, expired_lock = unpack(ARGV)

local lock = redis.call('GET', leader)
if lock and lock ~= expired_lock then
  return { 'held', lock }
end
-- Raised to the current time: no epoch is used twice, even if Redis lost all data while a leader was running.
local now = now_ms()
local new_epoch = to_decimal(math.max(redis.call('INCR', epoch), now))
redis.call('SET', epoch, new_epoch)
lock = table.concat({ '0', new_epoch, to_decimal(now), holder }, ' ')
redis.call('SET', leader, lock)
return { 'acquired', new_epoch, lock }
