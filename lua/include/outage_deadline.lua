--@include to_decimal
-- outage_deadline(outage, lags, now, agent, heartbeat): the new deadline of an agent that missed heartbeats because of an
-- outage; nil if it is expired already, or its time has passed. An outage gives it its whole timeout from the end. One of the
-- replicas themselves, in `lags`, gives it as much time as it lasted since its last heartbeat or registration.
local function outage_deadline(outage, lags, now, agent, heartbeat)
  if agent.status == 'expired' then
    return nil
  end
  local since, deadline = tonumber(heartbeat or agent.updated), 0
  local ended = tonumber(string.match(redis.call('GET', outage) or '', '^%d+'))
  if ended and not (heartbeat and since >= ended) then
    deadline = ended + agent.timeout
  end
  local lag = 0
  for _, text in ipairs(redis.call('LRANGE', lags, 0, -1)) do
    local lag_end, length = string.match(text, '^(%d+) %d+ (%d+)$')
    lag = lag + math.max(0, math.min(tonumber(length or 0), tonumber(lag_end or 0) - (since or 0)))
  end
  if lag > 0 then
    deadline = math.max(deadline, since + lag + (agent.status == 'degraded' and agent.eviction or agent.timeout))
  end
  return deadline > now and to_decimal(deadline) or nil
end
