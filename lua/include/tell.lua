-- tell(key, answered, stored): store the digest of what an agent is told, unless it is stored. Where none is given, return
-- the one that is stored, false for none, with a blank before it; '' else.
local function tell(key, answered, stored)
  if answered == '' then
    return stored and ' ' .. stored or ''
  end
  if answered ~= stored then
    redis.call('HSET', key, 'answered', answered)
  end
  return ''
end
