--@include missing_entry
-- count_missing(missing, healthy_by_namespace, namespace, after): of the agents of a namespace, the number of those that have
-- missed heartbeats after a time, and the number of those that were healthy then.
local function count_missing(missing, healthy_by_namespace, namespace, after)
  local from, to = missing_entry('unhealthy', namespace, after, '~'), string.format('unhealthy %s!', namespace)
  local unhealthy = redis.call('ZLEXCOUNT', missing, '(' .. from, '(' .. to)
  from, to = missing_entry('suspended', namespace, 1, ''), string.format('suspended %s!', namespace)
  local suspended = redis.call('ZLEXCOUNT', missing, '[' .. from, '(' .. to)
  local healthy = tonumber(redis.call('ZSCORE', healthy_by_namespace, namespace) or 0)
  return unhealthy + suspended, healthy + unhealthy
end
