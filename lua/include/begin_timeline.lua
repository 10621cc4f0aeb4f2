--@include to_decimal
-- begin_timeline(version, timeline, log, now, options): start a timeline above the current version, the last log entry and
-- options.min_version; returns its first version. options: id, min_version, log_length, reason.
local function begin_timeline(version, timeline, log, now, options)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local next_version = redis.call('INCR', version)
  -- XADD rejects ids below the last entry, which may be newer than a version key that was lost.
  local after_last = last and tonumber(string.match(last[1], '^%d+')) + 1 or 0
  local first_version = to_decimal(math.max(next_version, now, options.min_version + 1, after_last))
  local entry = { 'kind', 'new_timeline', 'reason', options.reason, 'prev', to_decimal(next_version - 1) }
  redis.call('XADD', log, 'MAXLEN', '~', options.log_length, first_version .. '-0', unpack(entry))
  redis.call('SET', version, first_version)
  redis.call('SET', timeline, options.id)
  return first_version
end
