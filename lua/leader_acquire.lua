#!lua flags=allow-oom
--[[ lead_take — become the leader if nobody is, or if the lock still reads as this caller saw it stand still.

  KEYS   leader  string  {mesh}:leader
         epoch   string  {mesh}:epoch
  ARGV   holder  JSON, who asks; opaque here
         seen    the lock as the caller saw it for a whole lease, '' if it saw none
  REPLY  taken <epoch> <lock>   the caller leads under this epoch
         held <lock>            somebody leads; the lock as it reads now
  WRITES leader epoch
  EMITS  nothing
  COST   O(1)
]]
--@include clock
--@include text
local leader, epoch = unpack(KEYS)
local holder, seen = unpack(ARGV)

local lock = redis.call('GET', leader)
if lock and lock ~= seen then
  return { 'held', lock }
end
-- Lifted to the time, so that no epoch ever comes twice, even after all data was lost with the leader alive.
local now = now_ms()
local taken = text(math.max(redis.call('INCR', epoch), now))
redis.call('SET', epoch, taken)
lock = table.concat({ '0', taken, text(now), holder }, ' ')
redis.call('SET', leader, lock)
return { 'taken', taken, lock }
