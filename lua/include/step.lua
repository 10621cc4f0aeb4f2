--@include text
--@include required
--@include change
-- step(keys, lead, id, agent, deadline, now): move one overdue agent to its next status and log it; returns the status
-- it now has. keys: version, log, deadlines, heartbeats, silent, required, agent; lead: history, retention.
local function step(keys, lead, id, agent, deadline, now)
  local status, ends = 'degraded', deadline - agent.timeout + agent.eviction
  if agent.status == 'degraded' then
    status, ends = 'expired', now + lead.retention
  elseif agent.status == 'expired' then
    status = 'removed'
  end
  local change = { id = id, key = keys.agent, agent = agent, before = {} }
  change.heartbeat = redis.call('ZSCORE', keys.heartbeats, id) or ''
  if status == 'removed' then
    change.kind, change.reason = 'remove', 'retention_over'
    append_change(keys.version, keys.log, lead.history, now, change)
    count_required(keys.required, agent.requires or '', '')
    redis.call('ZREM', keys.heartbeats, id)
    redis.call('ZREM', keys.deadlines, id)
    redis.call('ZREM', keys.silent, id)
  else
    if agent.status == 'healthy' then
      redis.call('ZADD', keys.silent, text(now), id)
    end
    change.kind, change.reason, change.before.status = 'modify', status, agent.status
    agent.status = status
    append_change(keys.version, keys.log, lead.history, now, change)
    redis.call('ZADD', keys.deadlines, text(ends), id)
  end
  return status
end
