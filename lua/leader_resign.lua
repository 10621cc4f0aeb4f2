#!lua flags=allow-oom
--[[ lead_resign — give the lead up, so that a follower takes it at its next look.

  KEYS   leader  string  {mesh}:leader
  ARGV   mine    the lock as the caller last wrote it
  REPLY  resigned   nobody leads now
         lost       somebody else leads already; nothing was written
  WRITES leader
  EMITS  nothing
  COST   O(1)
]]
local leader = unpack(KEYS)
local mine = unpack(ARGV)

if redis.call('GET', leader) ~= mine then
  return { 'lost' }
end
redis.call('DEL', leader)
return { 'resigned' }
