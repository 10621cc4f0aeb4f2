--@include text
-- graced_until(outage, agent, heartbeat, now): the deadline of an agent that could not be heard because of an outage,
-- nil where that is no excuse: it was heard since, its own timeout has passed since, or it only waits to be removed.
local function graced_until(outage, agent, heartbeat, now)
  local ended = tonumber(string.match(redis.call('GET', outage) or '', '^%d+'))
  if not ended or agent.status == 'expired' or heartbeat and tonumber(heartbeat) >= ended then
    return nil
  end
  return ended + agent.timeout > now and text(ended + agent.timeout) or nil
end
