--@include missing_entry
-- remove_missing(unhealthy_since, suspended, missing, namespace, id): remove an agent that sent a heartbeat, was removed or
-- left its namespace from the sets of agents that miss heartbeats.
local function remove_missing(unhealthy_since, suspended, missing, namespace, id)
  local since = redis.call('ZSCORE', unhealthy_since, id)
  if since then
    redis.call('ZREM', unhealthy_since, id)
    redis.call('ZREM', missing, missing_entry('unhealthy', namespace, tonumber(since), id))
  end
  if redis.call('ZREM', suspended, id) == 1 then
    redis.call('ZREM', missing, missing_entry('suspended', namespace, 0, id), missing_entry('suspended', namespace, 1, id))
  end
end
