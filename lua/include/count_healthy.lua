-- count_healthy(healthy_by_namespace, namespace, change): add to the number of healthy agents of a namespace.
local function count_healthy(healthy_by_namespace, namespace, change)
  if tonumber(redis.call('ZINCRBY', healthy_by_namespace, change, namespace)) <= 0 then
    redis.call('ZREM', healthy_by_namespace, namespace)
  end
end
