-- read_period(self_preservation, name): the current or last period of self-preservation of a namespace, or of the whole mesh
-- ('*'), nil if there is none. Times are numbers in ms: since, until_ms, ended and below_since (nil for none). overdue and
-- healthy are the numbers of agents, or of namespaces, at its start.
local function read_period(self_preservation, name)
  local text = redis.call('HGET', self_preservation, name)
  local numbers = {}
  for number in string.gmatch(text or '', '%S+') do
    numbers[#numbers + 1] = tonumber(number) or false
  end
  local since, until_ms, ended, below_since, overdue, healthy = unpack(numbers)
  if not since or not until_ms then
    return nil
  end
  return {
    since = since, until_ms = until_ms, ended = ended or nil, below_since = below_since or nil,
    overdue = overdue or 0, healthy = healthy or 0,
  }
end
