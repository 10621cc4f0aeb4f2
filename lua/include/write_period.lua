--@include to_decimal
-- write_period(self_preservation, protected, name, period): store a period of self-preservation, or delete it if it is nil.
-- `protected` has the namespaces by the start of their period, negative if it has ended; the mesh is not in it.
local function write_period(self_preservation, protected, name, period)
  if not period then
    redis.call('HDEL', self_preservation, name)
    redis.call('ZREM', protected, name)
    return
  end
  local fields = { period.since, period.until_ms, period.ended or '-', period.below_since or '-', period.overdue, period.healthy }
  for i, field in ipairs(fields) do
    fields[i] = field == '-' and field or to_decimal(field)
  end
  redis.call('HSET', self_preservation, name, table.concat(fields, ' '))
  if name ~= '*' then
    redis.call('ZADD', protected, to_decimal(period.ended and -period.since or period.since), name)
  end
end
