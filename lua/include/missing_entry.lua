-- missing_entry(kind, namespace, number, id): the member of `missing` for an agent that misses heartbeats. All scores are 0,
-- so members are sorted as text. kind unhealthy: number is the time, in ms, since which the agent is unhealthy; kind
-- suspended: self-preservation suspends its transition, and number is 1 if it counts as healthy until then, else 0.
local function missing_entry(kind, namespace, number, id)
  return string.format('%s %s %015.0f %s', kind, namespace, number, id)
end
