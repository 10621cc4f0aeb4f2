#!lua flags=allow-oom
--[[ sweep — degrade, expire or remove up to 200 overdue agents.

  Agents that missed heartbeats because of an outage get a new deadline instead. During self-preservation no agent changes.

  KEYS   version            string  {mesh}:version
         log                stream  {mesh}:log
         deadlines          zset    {mesh}:deadlines
         heartbeats         zset    {mesh}:heartbeats
         unhealthy_since    zset    {mesh}:unhealthy_since
         last_probe         string  {mesh}:last_probe
         outage             string  {mesh}:outage
         clock_rollback     string  {mesh}:clock_rollback
         epoch              string  {mesh}:epoch
         self_preservation  hash    {mesh}:self_preservation
         counters           hash    {mesh}:counters
         required_edges     hash    {mesh}:required_edges
         agent_keys…        hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   leader_epoch  integer, the caller's epoch
         log_length    integer, entries the log stores
         seen_version  integer, the highest version that the caller has read or returned
         retention     integer, ms an expired agent stays before it is removed
         window        integer, ms over which newly unhealthy agents are counted
         max_share     integer, percent of the healthy agents; self-preservation starts above it
         min_agents    integer, self-preservation starts only from this number on
         max_duration  integer, ms self-preservation lasts
         ids…          the id of each agent
  REPLY  ok <degraded> <expired> <removed> <not_due> <orphaned> <bad_record> <grace_granted>   numbers of agents.
                    not_due: received a heartbeat first; orphaned: a deadline without an agent, deleted; bad_record: an
                    invalid hash, checked again later; grace_granted: has a timeout from the end of an outage
         suspended             self-preservation is active; no agent was changed
         stale_epoch <epoch>   another replica leads; nothing was written
  WRITES version log deadlines heartbeats unhealthy_since last_probe outage clock_rollback self_preservation counters
         required_edges agent_keys
  EMITS  modify degraded | modify expired | remove retention_elapsed | nothing
  COST   O(K log N) for K agents
]]
--@include now_ms
--@include to_decimal
--@include read_agent
--@include is_valid_agent
--@include count_required_edges
--@include append_change
--@include record_probe
--@include outage_deadline
--@include has_recovered
local version, log, deadlines, heartbeats, unhealthy_since, last_probe, outage, clock_rollback, epoch, self_preservation, counters, required_edges = unpack(KEYS)
local leader_epoch, log_length, seen_version, retention, window, max_share, min_agents, max_duration = unpack(ARGV)
local fixed, count = 12, #KEYS - 12
if count > 200 or #ARGV ~= 8 + count then
  return redis.error_reply('ERR sweep expects the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= leader_epoch then
  return { 'stale_epoch', current }
end
window, max_share = tonumber(window), tonumber(max_share)
min_agents, max_duration = tonumber(min_agents), tonumber(max_duration)
local now = now_ms()

-- Returns the outcome for one agent (not_due, orphaned, bad_record, grace_granted, due) with its hash and deadlines.
local function classify(key, id)
  local found = { outcome = 'due', deadline = tonumber(redis.call('ZSCORE', deadlines, id)) }
  if not found.deadline or found.deadline > now then
    found.outcome = 'not_due'
    return found
  end
  found.agent = read_agent(key)
  if not found.agent then
    found.outcome = 'orphaned'
  elseif not is_valid_agent(found.agent) then
    found.outcome = 'bad_record'
  else
    found.grace_deadline = outage_deadline(outage, now, found.agent, redis.call('ZSCORE', heartbeats, id))
    found.outcome = found.grace_deadline and 'grace_granted' or 'due'
  end
  return found
end

local function exceeds_share(overdue, healthy)
  return overdue >= min_agents and overdue * 100 > max_share * healthy
end

-- Starts or ends self-preservation; returns whether it is active. newly_overdue: healthy agents that would be degraded
-- now; others: agents past their deadline that are not healthy. `heartbeats` has all agents that ever sent one. After a
-- period the next one can start only when the share was below the limit for a whole window.
local function update_self_preservation(newly_overdue, others)
  local until_ms, ended, below_since = unpack(redis.call('HMGET', self_preservation, 'until', 'ended', 'below_since'))
  if until_ms and not ended then
    if until_ms - now > max_duration then
      until_ms = to_decimal(now + max_duration)
      redis.call('HSET', self_preservation, 'until', until_ms)
    end
    if tonumber(until_ms) > now then
      if not has_recovered(heartbeats, deadlines, unhealthy_since, self_preservation, now, window, others, exceeds_share) then
        return true
      end
      until_ms = to_decimal(now)
      redis.call('HSET', self_preservation, 'until', until_ms)
    end
    ended = until_ms
    redis.call('HSET', self_preservation, 'ended', until_ms)
  end
  local before_window = redis.call('ZCOUNT', unhealthy_since, '-inf', to_decimal(now - window))
  local overdue = redis.call('ZCARD', unhealthy_since) - before_window + newly_overdue
  local healthy = redis.call('ZCARD', heartbeats) - before_window
  local exceeded = exceeds_share(overdue, healthy)
  if exceeded and not ended then
    redis.call(
      'HSET', self_preservation, 'since', to_decimal(now), 'until', to_decimal(now + max_duration),
      'overdue', to_decimal(overdue), 'healthy', to_decimal(healthy)
    )
    redis.call('HINCRBY', counters, 'self_preservation_activations', 1)
  elseif exceeded then
    redis.call('HDEL', self_preservation, 'below_since')
  elseif ended and (not below_since or tonumber(below_since) > now) then
    redis.call('HSET', self_preservation, 'below_since', to_decimal(now))
  elseif ended and now - below_since >= window then
    redis.call('DEL', self_preservation)
  end
  return exceeded and not ended
end

local function remove_times(id)
  redis.call('ZREM', heartbeats, id)
  redis.call('ZREM', deadlines, id)
  redis.call('ZREM', unhealthy_since, id)
end

-- Changes an overdue agent to its next status and returns that status.
local function transition(key, id, agent, deadline)
  local status, next_deadline = 'degraded', deadline - agent.timeout + agent.eviction
  if agent.status == 'degraded' then
    status, next_deadline = 'expired', now + retention
  elseif agent.status == 'expired' then
    status = 'removed'
  end
  local change = { id = id, key = key, agent = agent, before = {} }
  change.heartbeat = redis.call('ZSCORE', heartbeats, id) or ''
  if status == 'removed' then
    change.kind, change.reason = 'remove', 'retention_elapsed'
    append_change(version, log, log_length, seen_version, now, change)
    count_required_edges(required_edges, agent.required_edges or '', '')
    remove_times(id)
  else
    if agent.status == 'healthy' then
      redis.call('ZADD', unhealthy_since, to_decimal(now), id)
    end
    change.kind, change.reason, change.before.status = 'modify', status, agent.status
    agent.status = status
    append_change(version, log, log_length, seen_version, now, change)
    redis.call('ZADD', deadlines, to_decimal(next_deadline), id)
  end
  return status
end

-- Applies a result of classify and returns the outcome to count.
local function apply(key, id, classified)
  local outcome = classified.outcome
  if outcome == 'orphaned' then
    remove_times(id)
  elseif outcome == 'bad_record' then
    redis.call('ZADD', deadlines, to_decimal(now + retention), id)
  elseif outcome == 'grace_granted' then
    redis.call('ZADD', deadlines, classified.grace_deadline, id)
    redis.call('HINCRBY', counters, outcome, 1)
  elseif outcome == 'due' then
    outcome = transition(key, id, classified.agent, classified.deadline)
    redis.call('HINCRBY', counters, outcome, 1)
  end
  return outcome
end

record_probe(last_probe, outage, clock_rollback, now)
local classified, newly_overdue, others, seen_ids = {}, 0, 0, {}
for i = 1, count do
  local id = ARGV[8 + i]
  -- A repeated id is classified only after its first occurrence was applied.
  classified[i] = not seen_ids[id] and classify(KEYS[fixed + i], id)
  seen_ids[id] = true
  local outcome = classified[i] and classified[i].outcome or 'not_due'
  if outcome == 'due' and classified[i].agent.status == 'healthy' then
    newly_overdue = newly_overdue + 1
  elseif outcome ~= 'not_due' then
    others = others + 1
  end
end
if update_self_preservation(newly_overdue, others) then
  return { 'suspended' }
end
local total = { degraded = 0, expired = 0, removed = 0, not_due = 0, orphaned = 0, bad_record = 0, grace_granted = 0 }
for i = 1, count do
  local id, key = ARGV[8 + i], KEYS[fixed + i]
  local outcome = apply(key, id, classified[i] or classify(key, id))
  total[outcome] = total[outcome] + 1
end
return {
  'ok', total.degraded, total.expired, total.removed, total.not_due, total.orphaned, total.bad_record,
  total.grace_granted,
}
