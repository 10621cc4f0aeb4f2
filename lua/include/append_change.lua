--@include text
-- append_change(version, log, history, now, change): give one change the next version, log it, store it; returns the
-- version. The log entry is written before the agent, because nothing is rolled back and the log is what may refuse.
-- change: kind add|modify|remove, reason, id, key, agent (every field after the change), heartbeat (ms or ''),
-- before (what differed), spec_changed, updated (when, in ms, if not now), anew (what the key held is thrown away).
local function append_change(version_key, log, history, now, change)
  local version = redis.call('INCR', version_key)
  local prev = version - 1
  if version < now then
    version = now
    redis.call('SET', version_key, text(now))
  end
  local agent = change.agent
  agent.version = text(version)
  if change.spec_changed then
    agent.spec_version, agent.updated = text(version), change.updated or text(now)
  end
  local fields, entry = {}, { 'kind', change.kind, 'reason', change.reason, 'prev', text(prev), 'id', change.id }
  for name, value in pairs(agent) do
    fields[#fields + 1], fields[#fields + 2] = name, value
    entry[#entry + 1], entry[#entry + 2] = name, value
  end
  entry[#entry + 1], entry[#entry + 2] = 'heartbeat', change.heartbeat
  for name, value in pairs(change.before) do
    entry[#entry + 1], entry[#entry + 2] = name .. '_before', value
  end
  redis.call('XADD', log, 'MAXLEN', '~', history, text(version) .. '-0', unpack(entry))
  if change.kind == 'remove' or change.anew then
    redis.call('DEL', change.key)
  end
  if change.kind ~= 'remove' then
    redis.call('HSET', change.key, unpack(fields))
  end
  return text(version)
end
