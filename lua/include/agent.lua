-- read_agent(key): the whole hash of one agent as a table, or nil when there is none.
local function read_agent(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then
    return nil
  end
  local agent = {}
  for i = 1, #flat, 2 do
    agent[flat[i]] = flat[i + 1]
  end
  return agent
end
