--@include text
-- begin_history(version, history, log, now, new): begin a history above the version, the log's last entry and new.least;
-- returns its first version. new: id, least, keep (entries the log keeps), reason.
local function begin_history(version, history, log, now, new)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local next = redis.call('INCR', version)
  -- Above the log's last entry too: a log that outlived its version must not refuse what comes next.
  local begun = math.max(next, now, new.least + 1, last and tonumber(string.match(last[1], '^%d+')) + 1 or 0)
  local entry = { 'kind', 'begin', 'reason', new.reason, 'prev', text(next - 1) }
  redis.call('XADD', log, 'MAXLEN', '~', new.keep, text(begun) .. '-0', unpack(entry))
  redis.call('SET', version, text(begun))
  redis.call('SET', history, new.id)
  return text(begun)
end
