#!lua flags=allow-oom
--[[ unregister — remove one agent.

  KEYS   version               string  {mesh}:version
         log                   stream  {mesh}:log
         log_bytes             hash    {mesh}:log_bytes
         deadlines             zset    {mesh}:deadlines
         heartbeats            zset    {mesh}:heartbeats
         unhealthy_since       zset    {mesh}:unhealthy_since
         suspended             zset    {mesh}:suspended
         missing               zset    {mesh}:missing
         healthy_by_namespace  zset    {mesh}:healthy_by_namespace
         counters              hash    {mesh}:counters
         required_edges        hash    {mesh}:required_edges
         agent_key             hash    {mesh}:agent:<id>
  ARGV   id            text
         log_limits    `<entries> <bytes>` that the log stores
         seen_version  integer, the highest version that the caller has read or returned
  REPLY  removed <version>   the agent was removed at this version
         unknown_agent       never registered, or removed before
  WRITES version log log_bytes deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace counters required_edges
         agent_key
  EMITS  remove unregistered | nothing
  COST   O(log N + edges)
]]
--@include now_ms
--@include read_agent
--@include count_required_edges
--@include append_change
--@include remove_missing
--@include count_healthy
local version, log, log_bytes, deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, counters, required_edges, agent_key = unpack(KEYS)
local id, log_limits, seen_version = unpack(ARGV)

local agent, namespace = read_agent(agent_key)
if not agent then
  return { 'unknown_agent' }
end
local removed = append_change(version, log, log_bytes, log_limits, seen_version, now_ms(), {
  kind = 'remove', reason = 'unregistered', id = id, key = agent_key, agent = agent,
  heartbeat = redis.call('ZSCORE', heartbeats, id) or '', before = {},
})
count_required_edges(required_edges, agent.required_edges or '', '')
redis.call('ZREM', heartbeats, id)
redis.call('ZREM', deadlines, id)
remove_missing(unhealthy_since, suspended, missing, namespace, id)
if agent.status == 'healthy' then
  count_healthy(healthy_by_namespace, namespace, -1)
end
redis.call('HINCRBY', counters, 'unregistrations', 1)
return { 'removed', removed }
