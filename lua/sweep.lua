#!lua flags=allow-oom
--[[ sweep — move up to 200 silent agents one step on: degraded, expired, removed.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         deadlines    zset    {mesh}:deadlines
         heartbeats   zset    {mesh}:heartbeats
         pulse        string  {mesh}:pulse
         outage       string  {mesh}:outage
         epoch        string  {mesh}:epoch
         counters     hash    {mesh}:counters
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   lead_epoch   integer, the epoch the caller sweeps under
         history      integer, entries the log keeps
         retention    integer, ms an expired agent is kept
         ids…         the id of each agent
  REPLY  ok <degraded> <expired> <removed> <early> <orphaned> <bad>   how many; early: a heartbeat came first;
                               orphaned: a deadline without an agent, dropped; bad: a hash that cannot be read, put off
         stale_epoch <epoch>   another replica leads by now; nothing was written
  WRITES version log deadlines heartbeats pulse outage counters agent_keys
  EMITS  modify degraded | modify expired | remove retention_over | nothing
  COST   O(K log N) for K agents
]]
--@include clock
--@include text
--@include agent
--@include whole
--@include pulse
--@include step
local version, log, deadlines, heartbeats, pulse, outage, epoch, counters = unpack(KEYS)
local lead_epoch, history, retention = unpack(ARGV)
local fixed, count = 8, #KEYS - 8
if count > 200 or #ARGV ~= 3 + count then
  return redis.error_reply('ERR sweep takes the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= lead_epoch then
  return { 'stale_epoch', current }
end

local now = now_ms()
touch_pulse(pulse, outage, now)
local keys = { version = version, log = log, deadlines = deadlines, heartbeats = heartbeats }
local lead = { history = history, retention = retention }
local done = { degraded = 0, expired = 0, removed = 0, early = 0, orphaned = 0, bad = 0 }

for i = 1, count do
  local key, id = KEYS[fixed + i], ARGV[3 + i]
  local deadline = tonumber(redis.call('ZSCORE', deadlines, id))
  local agent = read_agent(key)
  local outcome
  if not deadline or deadline > now then
    outcome = 'early'
  elseif not agent then
    redis.call('ZREM', deadlines, id)
    redis.call('ZREM', heartbeats, id)
    outcome = 'orphaned'
  elseif not is_whole(agent) then
    redis.call('ZADD', deadlines, text(now + retention), id)
    outcome = 'bad'
  else
    keys.agent = key
    outcome = step(keys, lead, id, agent, deadline, now)
    redis.call('HINCRBY', counters, outcome, 1)
  end
  done[outcome] = done[outcome] + 1
end
return { 'ok', done.degraded, done.expired, done.removed, done.early, done.orphaned, done.bad }
