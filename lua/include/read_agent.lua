-- read_agent(key): the hash of one agent as a table, and its namespace ('?' without one); nil if it does not exist, empty if
-- the key is not a hash. The table omits the fields that do not belong to the agent's logged state.
local function read_agent(key)
  local fields = redis.pcall('HGETALL', key)
  if fields.err then
    return {}, '?'
  elseif #fields == 0 then
    return nil, '?'
  end
  local agent = {}
  for i = 1, #fields, 2 do
    agent[fields[i]] = fields[i + 1]
  end
  local namespace = agent.namespace or '?'
  agent.load, agent.response_digest, agent.namespace, agent.endpoint, agent.endpoint_before = nil, nil, nil, nil, nil
  return agent, namespace
end
