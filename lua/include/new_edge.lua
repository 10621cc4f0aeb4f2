-- has_new_edge(required, edges): whether there is one among these, lines of `<capability> <needed>`, that nobody has.
local function has_new_edge(required, edges)
  for edge in string.gmatch(edges, '[^\n]+') do
    if redis.call('HEXISTS', required, edge) == 0 then
      return true
    end
  end
  return false
end
