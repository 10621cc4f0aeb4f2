#!lua flags=allow-oom
--[[ end_self_preservation — end self-preservation now, of a namespace or of up to 200: overdue agents expire again.

  KEYS   self_preservation  hash  {mesh}:self_preservation
         protected          zset  {mesh}:protected
  ARGV   namespace  the name of a namespace, * for the whole mesh, or '' for both the mesh and all namespaces
  REPLY  ended <periods>   periods of self-preservation that were active. There may be more if namespace is ''
         not_active        none is active; nothing was written
  WRITES self_preservation protected
  EMITS  nothing
  COST   O(K log N) for K periods, at most 201
]]
--@include now_ms
--@include read_period
--@include write_period
local self_preservation, protected = unpack(KEYS)
local namespace = unpack(ARGV)

local names, now, ended = { namespace }, now_ms(), 0
if namespace == '' then
  names = redis.call('ZRANGEBYSCORE', protected, 1, '+inf', 'LIMIT', 0, 200)
  names[#names + 1] = '*'
end
for _, name in ipairs(names) do
  local period = read_period(self_preservation, name)
  if period and not period.ended and period.until_ms > now then
    period.ended = now
    write_period(self_preservation, protected, name, period)
    ended = ended + 1
  end
end
return ended > 0 and { 'ended', ended } or { 'not_active' }
