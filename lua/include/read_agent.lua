-- read_agent(key): the hash of one agent as a table; nil when there is none, empty when it is no hash at all. Its load
-- and the digest of its last answer are left out: they are its own, no change moves or logs them.
local function read_agent(key)
  local flat = redis.pcall('HGETALL', key)
  if flat.err then
    return {}
  elseif #flat == 0 then
    return nil
  end
  local agent = {}
  for i = 1, #flat, 2 do
    agent[flat[i]] = flat[i + 1]
  end
  agent.load, agent.answered = nil, nil
  return agent
end
