-- is_valid_agent(agent): whether a table from read_agent has every required field.
local function is_valid_agent(agent)
  return agent.spec and agent.status and agent.draining and agent.created and agent.updated
    and tonumber(agent.version) and tonumber(agent.spec_version)
    and tonumber(agent.timeout) and tonumber(agent.eviction)
end
