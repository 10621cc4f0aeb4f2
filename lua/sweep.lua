#!lua flags=allow-oom
--[[ sweep — degrade, expire or remove up to 200 overdue agents.

  Agents that missed heartbeats because of an outage get a new deadline instead. Agents of a namespace in self-preservation,
  and all agents while the whole mesh is in it, are moved from `deadlines` to `suspended`; their status does not change.

  KEYS   version               string  {mesh}:version
         log                   stream  {mesh}:log
         log_bytes             hash    {mesh}:log_bytes
         deadlines             zset    {mesh}:deadlines
         heartbeats            zset    {mesh}:heartbeats
         unhealthy_since       zset    {mesh}:unhealthy_since
         suspended             zset    {mesh}:suspended
         missing               zset    {mesh}:missing
         healthy_by_namespace  zset    {mesh}:healthy_by_namespace
         last_probe            string  {mesh}:last_probe
         outage                string  {mesh}:outage
         lags                  list    {mesh}:lags
         epoch                 string  {mesh}:epoch
         self_preservation     hash    {mesh}:self_preservation
         protected             zset    {mesh}:protected
         counters              hash    {mesh}:counters
         required_edges        hash    {mesh}:required_edges
         agent_keys…           hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   leader_epoch  integer, the caller's epoch
         log_limits    `<entries> <bytes>` that the log stores
         seen_version  integer, the highest version that the caller has read or returned
         retention     integer, ms an expired agent stays before it is removed
         window        integer, ms over which newly unhealthy agents are counted
         max_share     integer, percent of a namespace's healthy agents; its self-preservation starts above it
         min_agents    integer, self-preservation starts only from this number on
         max_duration  integer, ms self-preservation lasts
         ids…          the id of each agent
  REPLY  ok <degraded> <expired> <removed> <not_due> <orphaned> <bad_record> <grace_granted> <suspended>   numbers of
                    agents. not_due: received a heartbeat first; orphaned: a deadline without an agent, deleted; bad_record:
                    an invalid hash, checked again later; grace_granted: has a new deadline because of an outage
         stale_epoch <epoch>   another replica leads; nothing was written
         no_probe              there may have been an outage that no probe has recorded yet; nothing was written
  WRITES version log log_bytes deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace
         self_preservation protected counters required_edges agent_keys
  EMITS  modify degraded | modify expired | remove retention_elapsed | nothing
  COST   O(K log N) for K agents
]]
--@include now_ms
--@include read_agent
--@include is_valid_agent
--@include count_required_edges
--@include append_change
--@include outage_deadline
--@include remove_missing
--@include count_missing
--@include count_healthy
--@include exceeds_share
--@include read_period
--@include write_period
local version, log, log_bytes, deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, last_probe, outage, lags, epoch, self_preservation, protected, counters, required_edges = unpack(KEYS)
local leader_epoch, log_limits, seen_version, retention, window, max_share, min_agents, max_duration = unpack(ARGV)
local fixed, count = 17, #KEYS - 17
if count > 200 or #ARGV ~= 8 + count then
  return redis.error_reply('ERR sweep expects the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= leader_epoch then
  return { 'stale_epoch', current }
end
local now, probed = now_ms(), tonumber(redis.call('GET', last_probe))
if not probed or now < probed or now - probed > 5000 then
  return { 'no_probe' }
end
window, max_share, min_agents, max_duration = tonumber(window), tonumber(max_share), tonumber(min_agents), tonumber(max_duration)

-- Returns the outcome for one agent (not_due, orphaned, bad_record, grace_granted, due) with hash, namespace and deadlines.
local function classify(key, id)
  local found = { outcome = 'due', deadline = tonumber(redis.call('ZSCORE', deadlines, id)) }
  if not found.deadline or found.deadline > now then
    found.outcome = 'not_due'
    return found
  end
  found.agent, found.namespace = read_agent(key)
  if not found.agent then
    found.outcome = 'orphaned'
  elseif not is_valid_agent(found.agent) then
    found.outcome = 'bad_record'
  else
    found.grace_deadline = outage_deadline(outage, lags, now, found.agent, redis.call('ZSCORE', heartbeats, id))
    found.outcome = found.grace_deadline and 'grace_granted' or 'due'
  end
  return found
end

-- Whether a namespace is in self-preservation; starts it if too many of its agents miss heartbeats. newly_overdue: its
-- healthy agents that would be degraded now. After a period no other starts until update_self_preservation deleted it.
local function is_protected(namespace, newly_overdue)
  local period = read_period(self_preservation, namespace)
  if period and not period.ended and period.until_ms > now then
    return true
  end
  local overdue, healthy = count_missing(missing, healthy_by_namespace, namespace, now - window)
  local exceeded = exceeds_share(overdue + newly_overdue, healthy, min_agents, max_share)
  if exceeded and period then
    period.below_since = nil
    write_period(self_preservation, protected, namespace, period)
  elseif exceeded then
    period = { since = now, until_ms = now + max_duration, overdue = overdue + newly_overdue, healthy = healthy }
    write_period(self_preservation, protected, namespace, period)
    redis.call('HINCRBY', counters, 'self_preservation_activations', 1)
    return true
  end
  return false
end

local function remove_times(namespace, id)
  redis.call('ZREM', heartbeats, id)
  redis.call('ZREM', deadlines, id)
  remove_missing(unhealthy_since, suspended, missing, namespace, id)
end

local function suspend(id, found)
  redis.call('ZREM', deadlines, id)
  redis.call('ZADD', suspended, to_decimal(found.deadline), id)
  local is_healthy = found.agent.status == 'healthy'
  redis.call('ZADD', missing, 0, missing_entry('suspended', found.namespace, is_healthy and 1 or 0, id))
end

-- Changes an overdue agent to its next status and returns that status.
local function transition(key, id, found)
  local agent = found.agent
  local status, next_deadline = 'degraded', found.deadline - agent.timeout + agent.eviction
  if agent.status == 'degraded' then
    status, next_deadline = 'expired', now + retention
  elseif agent.status == 'expired' then
    status = 'removed'
  end
  local change = { id = id, key = key, agent = agent, before = {}, heartbeat = redis.call('ZSCORE', heartbeats, id) or '' }
  if status == 'removed' then
    change.kind, change.reason = 'remove', 'retention_elapsed'
    append_change(version, log, log_bytes, log_limits, seen_version, now, change)
    count_required_edges(required_edges, agent.required_edges or '', '')
    remove_times(found.namespace, id)
  else
    if agent.status == 'healthy' then
      redis.call('ZADD', unhealthy_since, to_decimal(now), id)
      redis.call('ZADD', missing, 0, missing_entry('unhealthy', found.namespace, now, id))
      count_healthy(healthy_by_namespace, found.namespace, -1)
    end
    change.kind, change.reason, change.before.status = 'modify', status, agent.status
    agent.status = status
    append_change(version, log, log_bytes, log_limits, seen_version, now, change)
    redis.call('ZADD', deadlines, to_decimal(next_deadline), id)
  end
  return status
end

-- Applies a result of classify and returns the outcome to count.
local function apply(key, id, found, is_suspended)
  local outcome = found.outcome
  if outcome == 'orphaned' then
    remove_times('?', id)
  elseif outcome == 'bad_record' then
    redis.call('ZADD', deadlines, to_decimal(now + retention), id)
  elseif outcome == 'grace_granted' then
    redis.call('ZADD', deadlines, found.grace_deadline, id)
    redis.call('HINCRBY', counters, outcome, 1)
  elseif outcome == 'due' and is_suspended then
    suspend(id, found)
    outcome = 'suspended'
  elseif outcome == 'due' then
    outcome = transition(key, id, found)
    redis.call('HINCRBY', counters, outcome, 1)
  end
  return outcome
end

local classified, newly_overdue, seen_ids = {}, {}, {}
for i = 1, count do
  local id = ARGV[8 + i]
  -- A repeated id is classified only after its first occurrence was applied.
  local found = not seen_ids[id] and classify(KEYS[fixed + i], id)
  classified[i], seen_ids[id] = found, true
  if found and found.outcome == 'due' then
    newly_overdue[found.namespace] = (newly_overdue[found.namespace] or 0) + (found.agent.status == 'healthy' and 1 or 0)
  end
end
local mesh, is_suspended = read_period(self_preservation, '*'), {}
local is_mesh_protected = mesh and not mesh.ended and mesh.until_ms > now
for namespace, overdue in pairs(newly_overdue) do
  is_suspended[namespace] = is_protected(namespace, overdue) or is_mesh_protected
end
local outcomes = { 'degraded', 'expired', 'removed', 'not_due', 'orphaned', 'bad_record', 'grace_granted', 'suspended' }
local total, reply = {}, { 'ok' }
for i = 1, count do
  local id, key = ARGV[8 + i], KEYS[fixed + i]
  local found = classified[i] or classify(key, id)
  local outcome = apply(key, id, found, is_suspended[found.namespace])
  total[outcome] = (total[outcome] or 0) + 1
end
for i, outcome in ipairs(outcomes) do
  reply[i + 1] = total[outcome] or 0
end
return reply
