#!lua
--[[ register — create one agent or replace what it says of itself.

  KEYS   version     string  {mesh}:version
         log         stream  {mesh}:log
         deadlines   zset    {mesh}:deadlines
         heartbeats  zset    {mesh}:heartbeats
         silent      zset    {mesh}:silent
         counters    hash    {mesh}:counters
         required    hash    {mesh}:required
         agent_key   hash    {mesh}:agent:<id>
  ARGV   id            text
         spec          canonical JSON, opaque here
         timeout       integer, ms without a heartbeat until degraded
         eviction      integer, ms without a heartbeat until expired
         precondition  '' none | absent | present | a version
         beats         1 when it is a heartbeat of any agent, 0 when not of a new or pending one
         edges         lines of `<capability> <needed>`: which of its capabilities cannot do without which
         seen          the number of {mesh}:required that edges were checked against, '' for none
         history       integer, entries the log keeps
  REPLY  created <version>     the agent is new: pending, or healthy when it beats
         updated <version>     what it says of itself changed
         unchanged <version>   a heartbeat; the version is that of its last change
         stale_version <version or ''>   the precondition does not hold; nothing was written
         stale_number    an edge is new and the number is not the one seen; nothing was written
  WRITES version log deadlines heartbeats silent counters required agent_key
  EMITS  add registered | modify updated | modify recovered | modify first_heartbeat | nothing
  COST   O(log N + edges)
]]
--@include clock
--@include agent
--@include whole
--@include holds
--@include new_edge
--@include registration
--@include required
--@include change
local version, log, deadlines, heartbeats, silent, counters, required, agent_key = unpack(KEYS)
local id, spec, timeout, eviction, precondition, beats, edges, seen, history = unpack(ARGV)

-- What cannot be read is as good as absent: registering anew mends it.
local found = read_agent(agent_key)
local agent = found and is_whole(found) and found or nil
local damaged = found and not agent
local before = found and found.requires or ''
if not holds(agent, precondition) then
  return { 'stale_version', agent and agent.version or '' }
end
if edges ~= '' and seen ~= (redis.call('HGET', required, 'number') or '0') and has_new_edge(required, edges) then
  return { 'stale_number' }
end

local now = now_ms()
local said = { spec = spec, timeout = timeout, eviction = eviction, requires = edges }
local change = registration(agent, said, beats == '1', now)
change.id, change.key, change.anew = id, agent_key, damaged
local word, current = 'unchanged', change.agent.version
if change.spec_changed or change.before.status then
  current = append_change(version, log, history, now, change)
  count_required(required, before, edges)
  word = change.kind == 'add' and 'created' or change.spec_changed and 'updated' or 'unchanged'
end
if change.heartbeat ~= '' then
  redis.call('ZADD', heartbeats, change.heartbeat, id)
elseif damaged then
  redis.call('ZREM', heartbeats, id)
end
redis.call('ZADD', deadlines, text(now + timeout), id)
redis.call('ZREM', silent, id)
redis.call('HINCRBY', counters, 'registrations', 1)
return { word, current }
