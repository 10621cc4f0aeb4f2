#!lua flags=allow-oom
--[[ leader_renew — increment the lock's counter, which shows followers that the leader is running.

  KEYS   leader  string  {mesh}:leader
         epoch   string  {mesh}:epoch
  ARGV   own_lock  the lock as the caller last wrote it
  REPLY  renewed <lock>     the current lock
         lost <lock or ''>  another replica leads, or the lock or its epoch does not exist; nothing was written
  WRITES leader
  EMITS  nothing
  COST   O(1)
]]
local leader, epoch = unpack(KEYS)
local own_lock = unpack(ARGV)

local lock = redis.call('GET', leader)
local counter, leader_epoch, holder = string.match(own_lock, '^(%d+) (%d+) (.*)$')
if lock ~= own_lock or redis.call('GET', epoch) ~= leader_epoch then
  return { 'lost', lock or '' }
end
lock = table.concat({ string.format('%.0f', counter + 1), leader_epoch, holder }, ' ')
redis.call('SET', leader, lock)
return { 'renewed', lock }
