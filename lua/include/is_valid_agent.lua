-- is_whole(agent): whether a table that read_agent gave has every field an agent must have.
local function is_whole(agent)
  return agent.spec and agent.status and agent.draining and agent.created and agent.updated
    and tonumber(agent.version) and tonumber(agent.spec_version)
    and tonumber(agent.timeout) and tonumber(agent.eviction)
end
