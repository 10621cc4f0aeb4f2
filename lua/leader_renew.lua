#!lua flags=allow-oom
--[[ lead_renew — raise the lock's counter, so that followers see that its holder lives.

  KEYS   leader  string  {mesh}:leader
         epoch   string  {mesh}:epoch
  ARGV   mine    the lock as the caller last wrote it
  REPLY  renewed <lock>     the lock as it reads now
         lost <lock or ''>  somebody else leads, or the lock or its epoch is gone; nothing was written
  WRITES leader
  EMITS  nothing
  COST   O(1)
]]
local leader, epoch = unpack(KEYS)
local mine = unpack(ARGV)

local lock = redis.call('GET', leader)
local counter, lead_epoch, rest = string.match(mine, '^(%d+) (%d+) (.*)$')
if lock ~= mine or redis.call('GET', epoch) ~= lead_epoch then
  return { 'lost', lock or '' }
end
lock = table.concat({ string.format('%.0f', counter + 1), lead_epoch, rest }, ' ')
redis.call('SET', leader, lock)
return { 'renewed', lock }
