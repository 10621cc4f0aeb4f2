#!lua flags=allow-oom
--[[ release — end the hold of a mass expiry now: the next sweep moves on whoever is overdue.

  KEYS   hold  hash  {mesh}:hold
  ARGV   none
  REPLY  released <since>   the hold had begun then
         not_held           there is none, or it is over already; nothing was written
  WRITES hold
  EMITS  nothing
  COST   O(1)
]]
--@include clock
--@include text
local hold = unpack(KEYS)

local now = now_ms()
local since, till, ended = unpack(redis.call('HMGET', hold, 'since', 'until', 'ended'))
if not till or ended or tonumber(till) <= now then
  return { 'not_held' }
end
redis.call('HSET', hold, 'ended', text(now))
return { 'released', since }
