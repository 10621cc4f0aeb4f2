--@include agent
--@include whole
--@include grace
-- look_at(keys, key, id, now): what one agent is due for: early, orphaned, bad, graced (with the new deadline) or due;
-- with its hash, deadline and heartbeat. keys: deadlines, heartbeats, outage.
local function look_at(keys, key, id, now)
  local found = { word = 'due', deadline = tonumber(redis.call('ZSCORE', keys.deadlines, id)) }
  if not found.deadline or found.deadline > now then
    found.word = 'early'
    return found
  end
  found.agent = read_agent(key)
  found.heartbeat = redis.call('ZSCORE', keys.heartbeats, id)
  if not found.agent then
    found.word = 'orphaned'
  elseif not is_whole(found.agent) then
    found.word = 'bad'
  else
    found.grace = graced_until(keys.outage, found.agent, found.heartbeat, now)
    found.word = found.grace and 'graced' or 'due'
  end
  return found
end
