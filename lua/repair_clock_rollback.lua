#!lua flags=allow-oom
--[[ repair_clock_rollback — after Redis' clock was set back: correct the times of up to 200 agents that lie in the future.

  The leader scans all agents and stores no progress: the times of an agent show whether it was corrected, so a new
  leader starts again and corrects none twice.

  KEYS   clock_rollback   string  {mesh}:clock_rollback
         deadlines        zset    {mesh}:deadlines
         heartbeats       zset    {mesh}:heartbeats
         unhealthy_since  zset    {mesh}:unhealthy_since
         missing          zset    {mesh}:missing
         epoch            string  {mesh}:epoch
         agent_keys…      hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   leader_epoch  integer, the caller's epoch
         rollback_ms   the value of clock_rollback when the scan started
         is_last       1 for the last agents of the scan, else 0
         ids…          the id of each agent
  REPLY  ok <reset>            agents that were corrected; the others were correct, removed or damaged
         not_needed            the clock was set back again, or the scan is complete; nothing was written
         stale_epoch <epoch>   another replica leads; nothing was written
  WRITES clock_rollback deadlines heartbeats unhealthy_since missing
  EMITS  nothing
  COST   O(K log N) for K agents
]]
--@include now_ms
--@include to_decimal
--@include missing_entry
local clock_rollback, deadlines, heartbeats, unhealthy_since, missing, epoch = unpack(KEYS)
local leader_epoch, rollback_ms, is_last = unpack(ARGV)
local fixed, count = 6, #KEYS - 6
if count > 200 or #ARGV ~= 3 + count then
  return redis.error_reply('ERR repair_clock_rollback expects the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= leader_epoch then
  return { 'stale_epoch', current }
end
if redis.call('GET', clock_rollback) ~= rollback_ms then
  return { 'not_needed' }
end

-- An agent that is unhealthy since a time in the future is so since now.
local function repair_unhealthy_since(key, id, now)
  local since = tonumber(redis.call('ZSCORE', unhealthy_since, id))
  if since and since > now then
    local namespace = redis.pcall('HGET', key, 'namespace')
    namespace = type(namespace) == 'string' and namespace or '?'
    redis.call('ZREM', missing, missing_entry('unhealthy', namespace, since, id))
    redis.call('ZADD', missing, 0, missing_entry('unhealthy', namespace, now, id))
    redis.call('ZADD', unhealthy_since, to_decimal(now), id)
  end
end

local now, reset = now_ms(), 0
for i = 1, count do
  local id = ARGV[3 + i]
  local deadline = tonumber(redis.call('ZSCORE', deadlines, id))
  local timeout = redis.pcall('HGET', KEYS[fixed + i], 'timeout')
  timeout = type(timeout) == 'string' and tonumber(timeout)
  -- A deadline must be at least a whole timeout after the rollback, and at most one timeout from now.
  redis.call('ZADD', heartbeats, 'XX', 'LT', to_decimal(now), id)
  repair_unhealthy_since(KEYS[fixed + i], id, now)
  if deadline and timeout and (deadline < rollback_ms + timeout or deadline > now + timeout) then
    redis.call('ZADD', deadlines, to_decimal(now + timeout), id)
    reset = reset + 1
  end
end
if is_last == '1' then
  redis.call('DEL', clock_rollback)
end
return { 'ok', reset }
