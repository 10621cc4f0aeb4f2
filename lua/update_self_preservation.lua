#!lua flags=allow-oom
--[[ update_self_preservation — end periods of self-preservation, and make agents overdue again whose suspension is over.

  A period ends after its duration, or when the agents that miss heartbeats have been below the share for a whole window. A
  period that has ended is deleted after such a window; until then no other one starts. The whole mesh is in
  self-preservation while too many of its namespaces are.

  KEYS   deadlines             zset    {mesh}:deadlines
         suspended             zset    {mesh}:suspended
         missing               zset    {mesh}:missing
         healthy_by_namespace  zset    {mesh}:healthy_by_namespace
         epoch                 string  {mesh}:epoch
         self_preservation     hash    {mesh}:self_preservation
         protected             zset    {mesh}:protected
         counters              hash    {mesh}:counters
  ARGV   leader_epoch      integer, the caller's epoch
         window            integer, ms over which newly unhealthy agents are counted
         max_share         integer, percent, as in sweep
         min_agents        integer, as in sweep; also the healthy agents from which on a namespace counts for the mesh
         max_duration      integer, ms self-preservation lasts
         release_all       1 to release the agents of all namespaces, else 0
         after             release the agents of namespaces after this one, in the order of their names
         namespaces…       at most 200 namespaces whose periods are updated
  REPLY  ok <released> <next>   agents that are overdue again; the `after` of the next call
         done <released>        no other call is necessary
         stale_epoch <epoch>    another replica leads; nothing was written
  WRITES deadlines suspended missing self_preservation protected counters
  EMITS  nothing
  COST   O(K log N) for K namespaces and released agents, at most 200 and 1,200
]]
--@include now_ms
--@include to_decimal
--@include count_missing
--@include exceeds_share
--@include read_period
--@include write_period
local deadlines, suspended, missing, healthy_by_namespace, epoch, self_preservation, protected, counters = unpack(KEYS)
local leader_epoch, window, max_share, min_agents, max_duration, release_all, after = unpack(ARGV)
if #ARGV > 207 then
  return redis.error_reply('ERR update_self_preservation expects at most 200 namespaces')
end
local current = redis.call('GET', epoch) or '0'
if current ~= leader_epoch then
  return { 'stale_epoch', current }
end
window, max_share = tonumber(window), tonumber(max_share)
min_agents, max_duration = tonumber(min_agents), tonumber(max_duration)
local min_namespaces, max_steps, max_released, now = 3, 200, 1000, now_ms()

-- Returns a period after the time that has passed, nil to delete it. exceeds: whether the share is exceeded, from a time on.
local function advance(period, exceeds)
  -- The clock of Redis may have gone back.
  period.until_ms = math.min(period.until_ms, now + max_duration)
  if period.until_ms <= now and not period.ended then
    period.ended = period.until_ms
  end
  if exceeds(period.ended and now or math.min(period.since, now)) then
    period.below_since = nil
  elseif not period.below_since or period.below_since > now then
    period.below_since = now
  elseif now - period.below_since >= window then
    return nil
  end
  return period
end

local function update_namespace(namespace)
  local period = read_period(self_preservation, namespace)
  write_period(self_preservation, protected, namespace, period and advance(period, function(time)
    local overdue, healthy = count_missing(missing, healthy_by_namespace, namespace, time - window)
    return exceeds_share(overdue, healthy, min_agents, max_share)
  end))
end

-- Returns the number of namespaces in self-preservation, and of those with enough healthy agents to count.
local function count_namespaces()
  local active = redis.call('ZRANGEBYSCORE', protected, 1, '+inf')
  local counted = redis.call('ZCOUNT', healthy_by_namespace, min_agents, '+inf')
  for i = 1, #active >= min_namespaces and #active or 0 do
    if tonumber(redis.call('ZSCORE', healthy_by_namespace, active[i]) or 0) < min_agents then
      counted = counted + 1
    end
  end
  return #active, counted
end

local function update_mesh()
  local active, counted = count_namespaces()
  local exceeded = exceeds_share(active, counted, min_namespaces, max_share)
  local period = read_period(self_preservation, '*')
  if period then
    write_period(self_preservation, protected, '*', advance(period, function() return exceeded end))
  elseif exceeded then
    period = { since = now, until_ms = now + max_duration, overdue = active, healthy = counted }
    write_period(self_preservation, protected, '*', period)
    redis.call('HINCRBY', counters, 'self_preservation_activations', 1)
  end
end

local function is_protected(name)
  local period = read_period(self_preservation, name)
  return period and not period.ended
end

-- Makes up to 200 suspended agents of a namespace overdue again; returns their number.
local function release(namespace)
  local from, to = '[suspended ' .. namespace .. ' ', '(suspended ' .. namespace .. '!'
  local entries = redis.call('ZRANGEBYLEX', missing, from, to, 'LIMIT', 0, 200)
  for _, entry in ipairs(entries) do
    local id = string.match(entry, '^suspended %S* %d+ (.*)$')
    local deadline = redis.call('ZSCORE', suspended, id)
    redis.call('ZREM', missing, entry)
    if deadline then
      redis.call('ZREM', suspended, id)
      redis.call('ZADD', deadlines, deadline, id)
    end
  end
  return #entries
end

-- Returns the first namespace after another one that has suspended agents.
local function next_namespace(namespace)
  local from = namespace == '' and '[suspended ' or '(suspended ' .. namespace .. '!'
  local entry = redis.call('ZRANGEBYLEX', missing, from, '(suspended!', 'LIMIT', 0, 1)[1]
  return entry and string.match(entry, '^suspended (%S*) ')
end

for i = 8, #ARGV do
  update_namespace(ARGV[i])
end
if after == '' then
  update_mesh()
end
local keep_all, released, namespace = is_protected('*'), 0, nil
for _ = 1, max_steps do
  namespace = next_namespace(after)
  if not namespace or released >= max_released then
    break
  end
  local number = 0
  if release_all == '1' or not keep_all and not is_protected(namespace) then
    number = release(namespace)
    released = released + number
  end
  if number < 200 then
    after = namespace
  end
end
if not namespace then
  return { 'done', to_decimal(released) }
end
return { 'ok', to_decimal(released), after }
