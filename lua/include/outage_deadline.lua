--@include to_decimal
-- outage_deadline(outage, now, agent, heartbeat): the new deadline of an agent that missed heartbeats because of an outage;
-- nil if it has sent a heartbeat or its timeout has passed since the outage, or if it is expired already.
local function outage_deadline(outage, now, agent, heartbeat)
  local ended = tonumber(string.match(redis.call('GET', outage) or '', '^%d+'))
  if not ended or agent.status == 'expired' or heartbeat and tonumber(heartbeat) >= ended then
    return nil
  end
  return ended + agent.timeout > now and to_decimal(ended + agent.timeout) or nil
end
