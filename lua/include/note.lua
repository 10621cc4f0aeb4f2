-- note(key, field, value): store what is no change, such as a load, in an agent's hash; '' leaves what is there. Only
-- what is another is written, so that the same told again costs no disk.
local function note(key, field, value)
  if value ~= '' and value ~= redis.call('HGET', key, field) then
    redis.call('HSET', key, field, value)
  end
end
