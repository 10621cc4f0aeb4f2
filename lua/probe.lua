#!lua flags=allow-oom
--[[ probe — record that this replica reaches Redis; return the outage, clock rollback and self-preservation state.

  KEYS   last_probe         string  {mesh}:last_probe
         outage             string  {mesh}:outage
         clock_rollback     string  {mesh}:clock_rollback
         deadlines          zset    {mesh}:deadlines
         counters           hash    {mesh}:counters
         self_preservation  hash    {mesh}:self_preservation
  ARGV   none
  REPLY  ok <now_ms> <outage> <clock_rollback> <overdue> <grace_granted> <activations> <self_preservation>…   overdue:
                   agents past their deadline; grace_granted, activations: totals; self_preservation: its fields since,
                   until, ended, overdue, healthy. A missing value is ''
  WRITES last_probe outage clock_rollback
  EMITS  nothing
  COST   O(log N)
]]
--@include now_ms
--@include to_decimal
--@include record_probe
local last_probe, outage, clock_rollback, deadlines, counters, self_preservation = unpack(KEYS)

local now = now_ms()
record_probe(last_probe, outage, clock_rollback, now)
local overdue = redis.call('ZCOUNT', deadlines, '-inf', to_decimal(now))
local reply = { 'ok', to_decimal(now), redis.call('GET', outage) or '', redis.call('GET', clock_rollback) or '' }
reply[#reply + 1] = to_decimal(overdue)
for _, total in ipairs(redis.call('HMGET', counters, 'grace_granted', 'self_preservation_activations')) do
  reply[#reply + 1] = total or '0'
end
for _, field in ipairs(redis.call('HMGET', self_preservation, 'since', 'until', 'ended', 'overdue', 'healthy')) do
  reply[#reply + 1] = field or ''
end
return reply
