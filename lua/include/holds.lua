-- holds(agent, precondition): whether it holds of an agent, nil where there is none: '' always, absent, present, or the
-- version of its last spec change or any later one of this agent.
local function holds(agent, precondition)
  local asked = tonumber(precondition)
  if agent and asked then
    return tonumber(agent.spec_version) <= asked and asked <= tonumber(agent.version)
  end
  return precondition == '' or (agent ~= nil) == (precondition ~= 'absent')
end
