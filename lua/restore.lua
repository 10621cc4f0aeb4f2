#!lua
--[[ restore — add up to 200 agents from a backup; agents that exist are not changed.

  KEYS   version               string  {mesh}:version
         log                   stream  {mesh}:log
         log_bytes             hash    {mesh}:log_bytes
         deadlines             zset    {mesh}:deadlines
         heartbeats            zset    {mesh}:heartbeats
         unhealthy_since       zset    {mesh}:unhealthy_since
         suspended             zset    {mesh}:suspended
         missing               zset    {mesh}:missing
         healthy_by_namespace  zset    {mesh}:healthy_by_namespace
         required_edges        hash    {mesh}:required_edges
         agent_keys…           hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   log_limits    `<entries> <bytes>` that the log stores
         seen_version  integer, the highest version that the caller has read or returned
         agents…       of each: id; spec, canonical JSON; status; draining, 0 or 1; created and updated, ms; timeout and
                       eviction, ms; heartbeat, ms or ''; time_left, ms until its next transition; edges, namespace and
                       endpoint, as in register
  REPLY  ok <restored> <skipped>   agents that were added, and agents that exist already
  WRITES version log log_bytes deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace required_edges agent_keys
  EMITS  add restored | nothing
  COST   O(K log N + edges) for K agents
]]
--@include now_ms
--@include to_decimal
--@include read_agent
--@include is_valid_agent
--@include count_required_edges
--@include append_change
--@include missing_entry
--@include remove_missing
--@include count_healthy
local version, log, log_bytes, deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, required_edges = unpack(KEYS)
local log_limits, seen_version = unpack(ARGV)
local fixed, count, fields_per_agent = 10, #KEYS - 10, 13
if count > 200 or #ARGV ~= 2 + fields_per_agent * count then
  return redis.error_reply('ERR restore expects thirteen fields of each of at most 200 agents')
end

local now = now_ms()
local restored, skipped = 0, 0
for i = 1, count do
  local key, offset = KEYS[fixed + i], 2 + fields_per_agent * (i - 1)
  local id, spec, status, draining, created, updated, timeout, eviction = unpack(ARGV, offset + 1, offset + 8)
  local heartbeat, time_left, edges, namespace, endpoint = unpack(ARGV, offset + 9, offset + fields_per_agent)
  local stored, stored_namespace = read_agent(key)
  if stored and is_valid_agent(stored) then
    skipped = skipped + 1
  else
    -- If the clock was set back since the backup, a heartbeat in the future would never expire.
    heartbeat = heartbeat ~= '' and to_decimal(math.min(tonumber(heartbeat), now)) or ''
    append_change(version, log, log_bytes, log_limits, seen_version, now, {
      kind = 'add', reason = 'restored', id = id, key = key,
      agent = {
        spec = spec, status = status, draining = draining, created = created, timeout = timeout, eviction = eviction,
        required_edges = edges ~= '' and edges or nil,
      },
      heartbeat = heartbeat, before = {}, spec_changed = true, updated = updated, replace_hash = stored ~= nil,
    })
    redis.call('HSET', key, 'namespace', namespace, 'endpoint', endpoint)
    count_required_edges(required_edges, stored and stored.required_edges or '', edges)
    remove_missing(unhealthy_since, suspended, missing, stored_namespace, id)
    if stored and stored.status == 'healthy' then
      count_healthy(healthy_by_namespace, stored_namespace, -1)
    end
    if status == 'healthy' then
      count_healthy(healthy_by_namespace, namespace, 1)
    end
    if heartbeat ~= '' then
      redis.call('ZADD', heartbeats, heartbeat, id)
      if status == 'degraded' or status == 'expired' then
        redis.call('ZADD', unhealthy_since, heartbeat, id)
        redis.call('ZADD', missing, 0, missing_entry('unhealthy', namespace, tonumber(heartbeat), id))
      end
    end
    redis.call('ZADD', deadlines, to_decimal(now + time_left), id)
    restored = restored + 1
  end
end
return { 'ok', restored, skipped }
