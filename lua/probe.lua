#!lua flags=allow-oom
--[[ probe — record that this replica reaches Redis; return the outage, clock rollback and self-preservation state.

  KEYS   last_probe         string  {mesh}:last_probe
         outage             string  {mesh}:outage
         lags               list    {mesh}:lags
         clock_rollback     string  {mesh}:clock_rollback
         deadlines          zset    {mesh}:deadlines
         suspended          zset    {mesh}:suspended
         missing            zset    {mesh}:missing
         counters           hash    {mesh}:counters
         self_preservation  hash    {mesh}:self_preservation
         protected          zset    {mesh}:protected
  ARGV   lag_ms  integer, ms by which the event loop of the replica was late since its last probe
  REPLY  ok <now_ms> <outage> <lag> <clock_rollback> <overdue> <grace_granted> <activations> <suspended> <active> <period>…
                   overdue: agents past their deadline, with the suspended ones; grace_granted, activations: totals;
                   active: namespaces in self-preservation; period: name, suspended agents and the fields that
                   write_period stores. First '*' if the mesh has one, then up to 20 active ones, the latest first, then
                   one that has ended. A missing value is ''
  WRITES last_probe outage lags clock_rollback
  EMITS  nothing
  COST   O(K log N) for K periods
]]
--@include now_ms
--@include to_decimal
local last_probe, outage, lags, clock_rollback, deadlines, suspended, missing, counters, self_preservation, protected = unpack(KEYS)
local max_periods = 20
local lag_ms = unpack(ARGV)

-- A gap of more than 5 s since the last probe, a clock that was set back, or no earlier probe is an outage that ended now:
-- `outage` stores its end and the last probe before it. If the gap would be no outage without the time by which the loop of
-- this replica was late, the replicas themselves were out, not Redis: `lags` gets its end, the last probe before it and its
-- length. After a rollback stored times lie in the future: `clock_rollback` makes the leader repair them.
local function record_probe(now, lag)
  local last = tonumber(redis.call('GET', last_probe))
  if last and now - last > 5000 and now - last - lag <= 5000 then
    local length = math.min(lag, now - last)
    redis.call('LPUSH', lags, to_decimal(now) .. ' ' .. to_decimal(last) .. ' ' .. to_decimal(length))
    redis.call('LTRIM', lags, 0, 19)
  elseif not last or now < last or now - last > 5000 then
    redis.call('SET', outage, to_decimal(now) .. ' ' .. (last and to_decimal(last) or ''))
  end
  if last and now < last then
    redis.call('SET', clock_rollback, to_decimal(now))
  end
  redis.call('SET', last_probe, to_decimal(now))
end

local now = now_ms()
record_probe(now, tonumber(lag_ms))
local held = redis.call('ZCARD', suspended)
local overdue = redis.call('ZCOUNT', deadlines, '-inf', to_decimal(now)) + held
local reply = { 'ok', to_decimal(now), redis.call('GET', outage) or '', redis.call('LINDEX', lags, 0) or '' }
reply[#reply + 1] = redis.call('GET', clock_rollback) or ''
reply[#reply + 1] = to_decimal(overdue)
for _, total in ipairs(redis.call('HMGET', counters, 'grace_granted', 'self_preservation_activations')) do
  reply[#reply + 1] = total or '0'
end
reply[#reply + 1] = to_decimal(held)
reply[#reply + 1] = to_decimal(redis.call('ZCOUNT', protected, 1, '+inf'))

local function add_period(name)
  local period, count = redis.call('HGET', self_preservation, name), held
  if name ~= '*' then
    count = redis.call('ZLEXCOUNT', missing, '[suspended ' .. name .. ' ', '(suspended ' .. name .. '!')
  end
  if period then
    reply[#reply + 1] = name .. ' ' .. to_decimal(count) .. ' ' .. period
  end
end

add_period('*')
for _, name in ipairs(redis.call('ZREVRANGEBYSCORE', protected, '+inf', 1, 'LIMIT', 0, max_periods)) do
  add_period(name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', protected, '-inf', '(0', 'LIMIT', 0, 1)) do
  add_period(name)
end
return reply
