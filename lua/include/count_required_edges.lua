-- count_required_edges(required_edges, before, after): update how many agents have each required edge. before, after: the
-- edges of one agent, lines as in register. A first occurrence of an edge raises `revision`.
local function count_required_edges(required_edges, before, after)
  if before == after then
    return
  end
  local obsolete = {}
  for edge in string.gmatch(before, '[^\n]+') do
    obsolete[edge] = true
  end
  for edge in string.gmatch(after, '[^\n]+') do
    if obsolete[edge] then
      obsolete[edge] = nil
    elseif redis.call('HINCRBY', required_edges, edge, 1) == 1 then
      redis.call('HINCRBY', required_edges, 'revision', 1)
    end
  end
  for edge in pairs(obsolete) do
    if redis.call('HINCRBY', required_edges, edge, -1) <= 0 then
      redis.call('HDEL', required_edges, edge)
    end
  end
end
