--@include agent
-- recovery(key, id, heartbeat): the change of an agent that is not healthy to one that is.
local function recovery(key, id, heartbeat)
  local agent = read_agent(key)
  local change = { kind = 'modify', id = id, key = key, agent = agent, heartbeat = heartbeat }
  change.reason = agent.status == 'pending' and 'first_heartbeat' or 'recovered'
  change.before = { status = agent.status }
  agent.status = 'healthy'
  return change
end
