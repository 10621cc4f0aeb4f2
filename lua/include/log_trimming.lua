--@include to_decimal
-- log_trimming(log_bytes, log_limits, change): count the bytes of a change's log entry; return the three options with which
-- XADD trims the log. log_limits: `<entries> <bytes>`. Entries so small that the log can have only a quarter of the bytes
-- in them are not counted. log_bytes: the bytes of all other entries so far as `total`; and as `<version>` the bytes before
-- that entry, for one entry of every 5 % of the limit. The log is cut at such an entry to 45 % of the limit and grows to
-- 55 %, with small entries to 80 %: Redis itself needs up to a quarter more than the contents.
local function log_trimming(log_bytes, log_limits, change)
  local max_entries, max_bytes = string.match(log_limits, '^(%d+) (%d+)$')
  local agent = change.agent
  local size = 512 + #change.id + #(agent.spec or '') + #(change.before.spec or '') + #(agent.required_edges or '')
  if size * max_entries * 4 <= tonumber(max_bytes) then
    return 'MAXLEN', '~', max_entries
  end
  local total, segment = redis.call('HINCRBY', log_bytes, 'total', size), max_bytes / 20
  local start = total - size
  if math.floor(total / segment) == math.floor(start / segment) then
    return 'MAXLEN', '~', max_entries
  end
  local oldest, oldest_start, is_full, offsets = agent.version, start, false, redis.call('HGETALL', log_bytes)
  for i = 1, #offsets, 2 do
    local version, offset = offsets[i], tonumber(offsets[i + 1])
    if version ~= 'total' and offset < total - 9 * segment then
      redis.call('HDEL', log_bytes, version)
      is_full = true
    elseif version ~= 'total' and offset < oldest_start then
      oldest, oldest_start = version, offset
    end
  end
  redis.call('HSET', log_bytes, agent.version, to_decimal(start))
  if is_full then
    return 'MINID', '=', oldest
  end
  return 'MAXLEN', '~', max_entries
end
