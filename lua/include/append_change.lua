--@include last_lost_version
--@include log_trimming
-- append_change(version_key, log, log_bytes, log_limits, seen_version, now, change): assign the next version to a change,
-- log it, and store the agent; returns the version. The entry comes first: Redis does not roll back, only XADD can fail.
-- change: kind add|modify|remove, reason, id, key, agent (all fields after the change), heartbeat (ms or ''), before
-- (old values of changed fields), spec_changed, updated (ms, default now), replace_hash (delete the old hash first).
local function append_change(version_key, log, log_bytes, log_limits, seen_version, now, change)
  local version = redis.call('INCR', version_key)
  local agent, prev, lowest = change.agent, version - 1, now
  if prev < tonumber(seen_version) then -- The store lost data: versions up to this one may have had other contents.
    lowest = math.max(now, last_lost_version(seen_version) + 1)
    redis.call('UNLINK', log)
  end
  if version < lowest then
    version = lowest
    redis.call('SET', version_key, to_decimal(version))
  end
  agent.version = to_decimal(version)
  if change.spec_changed then
    agent.spec_version, agent.updated = to_decimal(version), change.updated or to_decimal(now)
  end
  local fields, entry = {}, { 'kind', change.kind, 'reason', change.reason, 'prev', to_decimal(prev), 'id', change.id }
  for name, value in pairs(agent) do
    fields[#fields + 1], fields[#fields + 2] = name, value
    entry[#entry + 1], entry[#entry + 2] = name, value
  end
  entry[#entry + 1], entry[#entry + 2] = 'heartbeat', change.heartbeat
  for name, value in pairs(change.before) do
    entry[#entry + 1], entry[#entry + 2] = name .. '_before', value
  end
  local strategy, operator, threshold = log_trimming(log_bytes, log_limits, change)
  redis.call('XADD', log, strategy, operator, threshold, agent.version .. '-0', unpack(entry))
  if change.kind == 'remove' or change.replace_hash then
    redis.call('DEL', change.key)
  end
  if change.kind ~= 'remove' then
    redis.call('HSET', change.key, unpack(fields))
  end
  return agent.version
end
