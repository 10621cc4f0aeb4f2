-- count_required(required, before, after): count anew what one agent cannot do without. before, after: its edges, lines
-- of `<capability> <needed>`. The number rises with each edge that nobody had.
local function count_required(required, before, after)
  if before == after then
    return
  end
  local had = {}
  for edge in string.gmatch(before, '[^\n]+') do
    had[edge] = true
  end
  for edge in string.gmatch(after, '[^\n]+') do
    if had[edge] then
      had[edge] = nil
    elseif redis.call('HINCRBY', required, edge, 1) == 1 then
      redis.call('HINCRBY', required, 'number', 1)
    end
  end
  for edge in pairs(had) do
    if redis.call('HINCRBY', required, edge, -1) <= 0 then
      redis.call('HDEL', required, edge)
    end
  end
end
