#!lua flags=allow-oom
--[[ rewind — Redis' clock went back: set the times of up to 200 agents right, so that none lies in the future.

  The leader walks over all agents. Nobody notes how far it came: an agent's own times tell whether it was here since
  the clock went back, so a walk that a new leader begins anew does nothing twice.

  KEYS   rewind       string  {mesh}:rewind
         deadlines    zset    {mesh}:deadlines
         heartbeats   zset    {mesh}:heartbeats
         silent       zset    {mesh}:silent
         epoch        string  {mesh}:epoch
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   lead_epoch   integer, the epoch the caller leads under
         asked        rewind as it read when the caller began its walk
         final        1 with the last agents of the walk, else 0
         ids…         the id of each agent
  REPLY  ok <reset>            how many were set; the others had been here, or are gone or damaged
         over                  the clock went back again, or the walk is done; nothing was written
         stale_epoch <epoch>   another replica leads by now; nothing was written
  WRITES rewind deadlines heartbeats silent
  EMITS  nothing
  COST   O(K log N) for K agents
]]
--@include clock
--@include text
local rewind, deadlines, heartbeats, silent, epoch = unpack(KEYS)
local lead_epoch, asked, final = unpack(ARGV)
local fixed, count = 5, #KEYS - 5
if count > 200 or #ARGV ~= 3 + count then
  return redis.error_reply('ERR rewind takes the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= lead_epoch then
  return { 'stale_epoch', current }
end
if redis.call('GET', rewind) ~= asked then
  return { 'over' }
end

local now, reset = now_ms(), 0
for i = 1, count do
  local id = ARGV[3 + i]
  local deadline = tonumber(redis.call('ZSCORE', deadlines, id))
  local timeout = redis.pcall('HGET', KEYS[fixed + i], 'timeout')
  timeout = type(timeout) == 'string' and tonumber(timeout)
  -- From the moment the clock went back everybody has a whole timeout, and nobody more than one from now.
  redis.call('ZADD', heartbeats, 'XX', 'LT', text(now), id)
  redis.call('ZADD', silent, 'XX', 'LT', text(now), id)
  if deadline and timeout and (deadline < asked + timeout or deadline > now + timeout) then
    redis.call('ZADD', deadlines, text(now + timeout), id)
    reset = reset + 1
  end
end
if final == '1' then
  redis.call('DEL', rewind)
end
return { 'ok', reset }
