--@include to_decimal
-- record_probe(last_probe, outage, clock_rollback, now): record that Redis was reachable. A gap of more than 5 s since the
-- last probe, a clock that was set back, or no earlier probe is an outage that ended now: `outage` stores its end and the
-- last probe before it. After a rollback stored times lie in the future: `clock_rollback` makes the leader repair them.
local function record_probe(last_probe, outage, clock_rollback, now)
  local last = tonumber(redis.call('GET', last_probe))
  if not last or now < last or now - last > 5000 then
    redis.call('SET', outage, to_decimal(now) .. ' ' .. (last and to_decimal(last) or ''))
  end
  if last and now < last then
    redis.call('SET', clock_rollback, to_decimal(now))
  end
  redis.call('SET', last_probe, to_decimal(now))
end
