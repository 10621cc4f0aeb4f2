#!lua flags=allow-oom
--[[ sweep — move up to 200 silent agents one step on: degraded, expired, removed.

  Nobody is moved who could not be heard because of an outage, and nobody at all while a mass silence is held.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         deadlines    zset    {mesh}:deadlines
         heartbeats   zset    {mesh}:heartbeats
         silent       zset    {mesh}:silent
         pulse        string  {mesh}:pulse
         outage       string  {mesh}:outage
         rewind       string  {mesh}:rewind
         epoch        string  {mesh}:epoch
         hold         hash    {mesh}:hold
         counters     hash    {mesh}:counters
         required     hash    {mesh}:required
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   lead_epoch   integer, the epoch the caller sweeps under
         history      integer, entries the log keeps
         retention    integer, ms an expired agent is kept
         window       integer, ms over which those who leave healthy by silence are counted
         share        integer, percent of the healthy agents above which they are too many
         minimum      integer, agents below which they are never too many
         duration     integer, ms a hold lasts
         ids…         the id of each agent
  REPLY  ok <degraded> <expired> <removed> <early> <orphaned> <bad> <graced>   how many; early: a heartbeat came first;
                               orphaned: a deadline without an agent, dropped; bad: a hash that cannot be read, put off;
                               graced: silent because of an outage, has a timeout from its end
         held                  too many fell silent at once; nobody was moved
         stale_epoch <epoch>   another replica leads by now; nothing was written
  WRITES version log deadlines heartbeats silent pulse outage rewind hold counters required agent_keys
  EMITS  modify degraded | modify expired | remove retention_over | nothing
  COST   O(K log N) for K agents
]]
--@include clock
--@include pulse
--@include due
--@include hold
--@include settle
local version, log, deadlines, heartbeats, silent, pulse, outage, rewind, epoch, hold, counters, required = unpack(KEYS)
local lead_epoch, history, retention, window, share, minimum, duration = unpack(ARGV)
local fixed, count = 12, #KEYS - 12
if count > 200 or #ARGV ~= 7 + count then
  return redis.error_reply('ERR sweep takes the id of each of at most 200 agents')
end
local current = redis.call('GET', epoch) or '0'
if current ~= lead_epoch then
  return { 'stale_epoch', current }
end

local now = now_ms()
touch_pulse(pulse, outage, rewind, now)
local keys = { version = version, log = log, deadlines = deadlines, heartbeats = heartbeats, silent = silent }
keys.outage, keys.hold, keys.counters, keys.required = outage, hold, counters, required
local lead = { history = history, retention = retention }
local brake = { window = tonumber(window), share = tonumber(share), minimum = tonumber(minimum) }
brake.duration = tonumber(duration)

local found, leaving, seen = {}, 0, {}
for i = 1, count do
  local id = ARGV[7 + i]
  -- One that occurs twice is looked at again when its turn comes.
  found[i] = not seen[id] and look_at(keys, KEYS[fixed + i], id, now)
  seen[id] = true
  if found[i] and found[i].word == 'due' and found[i].agent.status == 'healthy' then
    leaving = leaving + 1
  end
end
if is_held(keys, brake, leaving, now) then
  return { 'held' }
end
local done = { degraded = 0, expired = 0, removed = 0, early = 0, orphaned = 0, bad = 0, graced = 0 }
for i = 1, count do
  local id, key = ARGV[7 + i], KEYS[fixed + i]
  local outcome = settle(keys, lead, id, key, found[i] or look_at(keys, key, id, now), now)
  done[outcome] = done[outcome] + 1
end
return { 'ok', done.degraded, done.expired, done.removed, done.early, done.orphaned, done.bad, done.graced }
