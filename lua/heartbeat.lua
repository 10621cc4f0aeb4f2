#!lua flags=allow-oom
--[[ heartbeat — extend the deadlines of up to 200 agents.

  KEYS   version               string  {mesh}:version
         log                   stream  {mesh}:log
         log_bytes             hash    {mesh}:log_bytes
         deadlines             zset    {mesh}:deadlines
         heartbeats            zset    {mesh}:heartbeats
         unhealthy_since       zset    {mesh}:unhealthy_since
         suspended             zset    {mesh}:suspended
         missing               zset    {mesh}:missing
         healthy_by_namespace  zset    {mesh}:healthy_by_namespace
         counters              hash    {mesh}:counters
         agent_keys…           hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   log_limits    `<entries> <bytes>` that the log stores
         seen_version  integer, the highest version that the caller has read or returned
         agents…       id, mode, load and response_digest of each. revive extends any agent and makes it healthy; extend
                       extends only a healthy agent; record extends none. load and response_digest are stored without a
                       log entry; '' does not change the stored value
  REPLY  ok <now_ms> <version> <word>…   version: the resource version after the call, '' if there is none. One word for
                               each agent, in order; if another response_digest was stored, a blank and the stored one
                               follow:
         healthy                       extended, or healthy already
         pending degraded expired      extend and record only: unchanged
         unknown_agent                 never registered, or removed
         bad_record                    its hash is invalid; nothing was written
  WRITES version log log_bytes deadlines heartbeats unhealthy_since suspended missing healthy_by_namespace counters agent_keys
  EMITS  modify first_heartbeat | modify recovered | nothing
  COST   O(K log N) for K agents
]]
--@include now_ms
--@include to_decimal
--@include read_agent
--@include append_change
--@include remove_missing
--@include count_healthy
local version, log, log_bytes, deadlines, heartbeats, unhealthy_since, suspended, missing, healthy_by_namespace, counters = unpack(KEYS)
local log_limits, seen_version = unpack(ARGV)
local fixed, count = 10, #KEYS - 10
if count > 200 or #ARGV ~= 2 + 4 * count then
  return redis.error_reply('ERR heartbeat expects id, mode, load and response digest of each of at most 200 agents')
end

-- Stores the digest of the response to the agent. Returns a blank and the one that was stored, if it is another one.
local function update_response_digest(key, digest, stored)
  if digest == stored then
    return ''
  end
  if digest ~= '' then
    redis.call('HSET', key, 'response_digest', digest)
  end
  return stored and ' ' .. stored or ''
end

local function mark_healthy(key, id, now)
  local agent, namespace = read_agent(key)
  local status = agent.status
  agent.status = 'healthy'
  append_change(version, log, log_bytes, log_limits, seen_version, now, {
    kind = 'modify', reason = status == 'pending' and 'first_heartbeat' or 'recovered', id = id, key = key,
    agent = agent, heartbeat = to_decimal(now), before = { status = status },
  })
  count_healthy(healthy_by_namespace, namespace, 1)
end

local now = now_ms()
local now_text = to_decimal(now)
local reply, extended = { 'ok', now_text, '' }, 0
for i = 1, count do
  local key, id, mode, load, response_digest = KEYS[fixed + i], unpack(ARGV, 4 * i - 1, 4 * i + 2)
  local stored = redis.pcall('HMGET', key, 'status', 'timeout', 'response_digest')
  local status, timeout = stored[1], tonumber(stored[2])
  if stored.err or (status and not timeout) then
    reply[i + 3] = 'bad_record'
  elseif not status then
    reply[i + 3] = 'unknown_agent'
  else
    -- Only a different value is written: a repeated load costs no disk write.
    if load ~= '' and load ~= redis.call('HGET', key, 'load') then
      redis.call('HSET', key, 'load', load)
    end
    local digest_suffix = update_response_digest(key, response_digest, stored[3])
    if mode == 'revive' or mode == 'extend' and status == 'healthy' then
      if status ~= 'healthy' then
        mark_healthy(key, id, now)
      end
      redis.call('ZADD', heartbeats, now_text, id)
      -- An agent without a deadline is suspended.
      if redis.call('ZADD', deadlines, to_decimal(now + timeout), id) == 1 or status ~= 'healthy' then
        remove_missing(unhealthy_since, suspended, missing, redis.call('HGET', key, 'namespace') or '?', id)
      end
      status, extended = 'healthy', extended + 1
    end
    reply[i + 3] = status .. digest_suffix
  end
end
redis.call('HINCRBY', counters, 'heartbeats', extended)
reply[3] = redis.call('GET', version) or ''
return reply
