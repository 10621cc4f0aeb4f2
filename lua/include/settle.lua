--@include text
--@include step
-- settle(keys, lead, id, key, found, now): do what look_at found an agent to be due for, and return the word for it:
-- that which look_at gave, or the status the agent now has. keys, lead: as for step, and counters.
local function settle(keys, lead, id, key, found, now)
  local outcome = found.word
  if outcome == 'orphaned' then
    redis.call('ZREM', keys.deadlines, id)
    redis.call('ZREM', keys.heartbeats, id)
    redis.call('ZREM', keys.silent, id)
  elseif outcome == 'bad' then
    redis.call('ZADD', keys.deadlines, text(now + lead.retention), id)
  elseif outcome == 'graced' then
    redis.call('ZADD', keys.deadlines, found.grace, id)
    redis.call('HINCRBY', keys.counters, outcome, 1)
  elseif outcome == 'due' then
    keys.agent = key
    outcome = step(keys, lead, id, found.agent, found.deadline, now)
    redis.call('HINCRBY', keys.counters, outcome, 1)
  end
  return outcome
end
