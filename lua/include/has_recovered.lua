--@include to_decimal
-- has_recovered(heartbeats, deadlines, unhealthy_since, self_preservation, now, window, others, exceeds): whether the
-- agents that miss heartbeats have been below the share for a whole window, because they returned or unregistered. They
-- are those unhealthy since the window in which self-preservation started, and the healthy ones past their deadline.
-- others: agents past their deadline that are not healthy; exceeds: whether a number is above the share of another one.
local function has_recovered(heartbeats, deadlines, unhealthy_since, self_preservation, now, window, others, exceeds)
  local since, below_since = unpack(redis.call('HMGET', self_preservation, 'since', 'below_since'))
  local before_window = redis.call('ZCOUNT', unhealthy_since, '-inf', to_decimal((since or now) - window))
  local overdue = redis.call('ZCOUNT', deadlines, '-inf', to_decimal(now)) - others
  local missing = redis.call('ZCARD', unhealthy_since) - before_window + overdue
  if exceeds(missing, redis.call('ZCARD', heartbeats) - before_window) then
    if below_since then
      redis.call('HDEL', self_preservation, 'below_since')
    end
    return false
  elseif not below_since or tonumber(below_since) > now then
    redis.call('HSET', self_preservation, 'below_since', to_decimal(now))
    return false
  end
  return now - below_since >= window
end
