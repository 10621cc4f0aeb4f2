--@include text
-- registration(agent, said, beats, now): the change that a registration is to an agent, nil where there is none; the
-- agent in it is as it is then. said: spec, timeout, eviction, requires; what is '' need not be there.
local function registration(agent, said, beats, now)
  local change = { kind = 'modify', before = {}, heartbeat = '' }
  if agent then
    change.reason = agent.status == 'pending' and 'first_heartbeat' or 'recovered'
    change.before.spec = agent.spec ~= said.spec and agent.spec or nil
  else
    agent = { status = 'pending', draining = '0', created = text(now) }
    change.kind = 'add'
  end
  change.agent = agent
  for name, value in pairs(said) do
    if (agent[name] or '') ~= value then
      agent[name], change.spec_changed = value, true
      change.reason = change.kind == 'add' and 'registered' or 'updated'
    end
  end
  if beats or agent.status ~= 'pending' then
    change.heartbeat = text(now)
    if agent.status ~= 'healthy' then
      change.before.status = change.kind == 'modify' and agent.status or nil
      agent.status = 'healthy'
    end
  end
  return change
end
