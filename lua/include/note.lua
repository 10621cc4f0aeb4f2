-- note(key, field, value, held): store what is no change, such as a load, in an agent's hash, where it is another.
local function note(key, field, value, held)
  if value ~= '' and value ~= held then
    redis.call('HSET', key, field, value)
  end
end
