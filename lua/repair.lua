#!lua flags=allow-oom
--[[ repair — repair up to 200 agents, so that each has a valid hash and a deadline, or no data.

  KEYS   deadlines             zset  {mesh}:deadlines
         heartbeats            zset  {mesh}:heartbeats
         unhealthy_since       zset  {mesh}:unhealthy_since
         suspended             zset  {mesh}:suspended
         missing               zset  {mesh}:missing
         healthy_by_namespace  zset  {mesh}:healthy_by_namespace
         required_edges        hash  {mesh}:required_edges
         agent_keys…           hash  {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   agents…      of each: id; and the version of a hash to delete because its spec is invalid, or ''
  REPLY  ok <orphaned> <deleted> <rescheduled>   agents without a hash whose deadline or heartbeat was removed; invalid
                                                 agents that were deleted; agents that got a deadline, due now
  WRITES deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace required_edges agent_keys
  EMITS  nothing
  COST   O(K log N + edges) for K agents
]]
--@include now_ms
--@include to_decimal
--@include read_agent
--@include is_valid_agent
--@include count_required_edges
--@include remove_missing
--@include count_healthy
local deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, required_edges = unpack(KEYS)
local fixed, count = 7, #KEYS - 7
if count > 200 or #ARGV ~= 2 * count then
  return redis.error_reply('ERR repair expects an id and a version of each of at most 200 agents')
end

local now = now_ms()
local orphaned, deleted, rescheduled = 0, 0, 0
for i = 1, count do
  local key, id, invalid_version = KEYS[fixed + i], ARGV[2 * i - 1], ARGV[2 * i]
  local agent, namespace = read_agent(key)
  if agent and is_valid_agent(agent) and agent.version ~= invalid_version then
    if not redis.call('ZSCORE', deadlines, id) and not redis.call('ZSCORE', suspended, id) then
      redis.call('ZADD', deadlines, to_decimal(now), id)
      rescheduled = rescheduled + 1
    end
  else
    if agent then
      count_required_edges(required_edges, agent.required_edges or '', '')
      redis.call('DEL', key)
      deleted = deleted + 1
      if agent.status == 'healthy' then
        count_healthy(healthy_by_namespace, namespace, -1)
      end
    end
    local removed_entries = redis.call('ZREM', deadlines, id) + redis.call('ZREM', heartbeats, id)
    removed_entries = removed_entries + (redis.call('ZSCORE', suspended, id) and 1 or 0)
    remove_missing(unhealthy_since, suspended, missing, namespace, id)
    if not agent and removed_entries > 0 then
      orphaned = orphaned + 1
    end
  end
end
return { 'ok', orphaned, deleted, rescheduled }
