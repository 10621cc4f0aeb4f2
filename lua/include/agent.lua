-- read_agent(key): the whole hash of one agent as a table; nil when there is none, empty when it is no hash at all.
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
  return agent
end
