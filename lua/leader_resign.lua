#!lua flags=allow-oom
--[[ leader_resign — delete the leader's lock, so that a follower acquires it at its next attempt.

  KEYS   leader  string  {mesh}:leader
  ARGV   own_lock  the lock as the caller last wrote it
  REPLY  resigned   there is no leader now
         lost       another replica leads; nothing was written
  WRITES leader
  EMITS  nothing
  COST   O(1)
]]
local leader = unpack(KEYS)
local own_lock = unpack(ARGV)

if redis.call('GET', leader) ~= own_lock then
  return { 'lost' }
end
redis.call('DEL', leader)
return { 'resigned' }
