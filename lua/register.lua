#!lua
--[[ register — create one agent or replace its specification.

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
  ARGV   id                   text
         spec                 canonical JSON, opaque here
         namespace            the agent's namespace, as in spec
         endpoint             the agent's endpoint, as in spec
         exclusive            1 if another living endpoint with this id rejects the registration, else 0
         timeout              integer, ms without a heartbeat until degraded
         eviction             integer, ms without a heartbeat until expired
         precondition         '' none | absent | present | a version
         counts_as_heartbeat  1 if a new or pending agent becomes healthy, else 0
         edges                lines of `<namespace>/<capability> <namespace or *>/<required capability>`
         edges_revision       the revision of {mesh}:required_edges that edges were checked against, '' for none
         log_limits           `<entries> <bytes>` that the log stores
         seen_version         integer, the highest version that the caller has read or returned
  REPLY  created <version>     new agent: pending, or healthy if counts_as_heartbeat
         updated <version>     its specification changed
         unchanged <version>   a heartbeat; the version of its last change
                               If the living agent was of another namespace, or its endpoint alternates between two
                               within one timeout, its namespace and endpoint before this call follow the version
         stale_version <version or ''>   the precondition failed; nothing was written
         id_in_use <endpoint>  exclusive, and the living agent has this other endpoint; nothing was written
         edges_changed   an edge is new and edges_revision is not the current one; nothing was written
  WRITES version log log_bytes deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace counters required_edges
         agent_key
  EMITS  add registered | modify updated | modify recovered | modify first_heartbeat | nothing
  COST   O(log N + edges)
]]
--@include now_ms
--@include to_decimal
--@include read_agent
--@include is_valid_agent
--@include count_required_edges
--@include append_change
--@include remove_missing
--@include count_healthy
local version, log, log_bytes, deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, counters, required_edges, agent_key = unpack(KEYS)
local id, spec, namespace, endpoint, exclusive, timeout, eviction, precondition, counts_as_heartbeat, edges, edges_revision, log_limits, seen_version = unpack(ARGV)

-- A version satisfies it if it is between the agent's last spec change and its last change of any kind.
local function satisfies_precondition(agent)
  local expected = tonumber(precondition)
  if agent and expected then
    return tonumber(agent.spec_version) <= expected and expected <= tonumber(agent.version)
  end
  return precondition == '' or (agent ~= nil) == (precondition ~= 'absent')
end

local function has_new_edge()
  for edge in string.gmatch(edges, '[^\n]+') do
    if redis.call('HEXISTS', required_edges, edge) == 0 then
      return true
    end
  end
  return false
end

-- Returns the change from the stored agent (nil if there is none) to the registered one; the change may be empty.
local function registration_change(agent, now)
  local change = { kind = 'modify', id = id, key = agent_key, before = {}, heartbeat = '' }
  if agent then
    change.reason = agent.status == 'pending' and 'first_heartbeat' or 'recovered'
    change.before.spec = agent.spec ~= spec and agent.spec or nil
  else
    agent = { status = 'pending', draining = '0', created = to_decimal(now) }
    change.kind = 'add'
  end
  change.agent = agent
  local registered = { spec = spec, timeout = timeout, eviction = eviction, required_edges = edges }
  for name, value in pairs(registered) do
    if (agent[name] or '') ~= value then
      agent[name], change.spec_changed = value, true
      change.reason = change.kind == 'add' and 'registered' or 'updated'
    end
  end
  change.before.updated = change.spec_changed and agent.updated or nil
  if counts_as_heartbeat == '1' or agent.status ~= 'pending' then
    change.heartbeat = to_decimal(now)
    if agent.status ~= 'healthy' then
      change.before.status = change.kind == 'modify' and agent.status or nil
      agent.status = 'healthy'
    end
  end
  return change
end

-- Whether a living agent is replaced by one of another namespace, or by one whose endpoint it had within one timeout.
-- `earlier` is the time of the last change of its endpoint, and the endpoint before that.
local function is_conflict(namespace_before, endpoint_before, earlier, now)
  local changed, endpoint_earlier = string.match(earlier or '', '^(%d+) (.*)$')
  return namespace_before ~= namespace
    or endpoint_before ~= endpoint and endpoint_earlier == endpoint and now - changed <= tonumber(timeout)
end

-- An invalid hash counts as absent: registering again replaces it.
local stored, stored_namespace = read_agent(agent_key)
local agent = stored and is_valid_agent(stored) and stored or nil
local is_damaged = stored and not agent
local edges_before = stored and stored.required_edges or ''
local status_before = stored and stored.status
if not satisfies_precondition(agent) then
  return { 'stale_version', agent and agent.version or '' }
end
local namespace_before, endpoint_before, earlier
if agent then
  namespace_before, endpoint_before, earlier =
    unpack(redis.call('HMGET', agent_key, 'namespace', 'endpoint', 'endpoint_before'))
end
local is_alive = endpoint_before and agent.status ~= 'expired'
if exclusive == '1' and is_alive and endpoint_before ~= endpoint then
  return { 'id_in_use', endpoint_before }
end
if edges ~= '' and edges_revision ~= (redis.call('HGET', required_edges, 'revision') or '0') and has_new_edge() then
  return { 'edges_changed' }
end

local now = now_ms()
local conflict = is_alive and is_conflict(namespace_before, endpoint_before, earlier, now)
local change = registration_change(agent, now)
change.replace_hash = is_damaged
local outcome, current = 'unchanged', change.agent.version
if change.spec_changed or change.before.status then
  current = append_change(version, log, log_bytes, log_limits, seen_version, now, change)
  count_required_edges(required_edges, edges_before, edges)
  outcome = change.kind == 'add' and 'created' or change.spec_changed and 'updated' or 'unchanged'
end
if namespace_before ~= namespace or endpoint_before ~= endpoint then
  redis.call('HSET', agent_key, 'namespace', namespace, 'endpoint', endpoint)
  if endpoint_before and endpoint_before ~= endpoint then
    redis.call('HSET', agent_key, 'endpoint_before', to_decimal(now) .. ' ' .. endpoint_before)
  end
end
if change.heartbeat ~= '' then
  redis.call('ZADD', heartbeats, change.heartbeat, id)
elseif is_damaged then
  redis.call('ZREM', heartbeats, id)
end
local was_healthy, is_healthy = status_before == 'healthy', change.agent.status == 'healthy'
if was_healthy and not (is_healthy and stored_namespace == namespace) then
  count_healthy(healthy_by_namespace, stored_namespace, -1)
end
if is_healthy and not (was_healthy and stored_namespace == namespace) then
  count_healthy(healthy_by_namespace, namespace, 1)
end
-- An agent without a deadline is suspended, or new.
if redis.call('ZADD', deadlines, to_decimal(now + timeout), id) == 1 or not was_healthy then
  remove_missing(unhealthy_since, suspended, missing, stored_namespace, id)
end
redis.call('HINCRBY', counters, 'registrations', 1)
return conflict and { outcome, current, namespace_before, endpoint_before } or { outcome, current }
