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
--@include text
--@include agent
--@include whole
--@include new_edge
--@include required
--@include change
local version, log, deadlines, heartbeats, silent, counters, required, agent_key = unpack(KEYS)
local id, spec, timeout, eviction, precondition, beats, edges, seen, history = unpack(ARGV)

-- What cannot be read is as good as absent: registering anew mends it.
local found = read_agent(agent_key)
local agent = found and is_whole(found) and found or nil
local damaged = found and not agent
local held, asked = (agent ~= nil) == (precondition ~= 'absent'), tonumber(precondition)
if agent and asked then
  held = tonumber(agent.spec_version) <= asked and asked <= tonumber(agent.version)
end
if precondition ~= '' and not held then
  return { 'stale_version', agent and agent.version or '' }
end
if edges ~= '' and seen ~= (redis.call('HGET', required, 'number') or '0') and has_new_edge(required, edges) then
  return { 'stale_number' }
end

local now = now_ms()
local change = { id = id, key = agent_key, before = {}, heartbeat = '', anew = damaged }
if not agent then
  agent = { status = 'pending', draining = '0', created = text(now) }
  change.kind, change.reason, change.spec_changed = 'add', 'registered', true
else
  change.kind, change.reason = 'modify', agent.status == 'pending' and 'first_heartbeat' or 'recovered'
  change.before.spec = agent.spec ~= spec and agent.spec or nil
  local requires = agent.requires or ''
  if agent.spec ~= spec or agent.timeout ~= timeout or agent.eviction ~= eviction or requires ~= edges then
    change.reason, change.spec_changed = 'updated', true
  end
end
if beats == '1' or agent.status ~= 'pending' then
  change.heartbeat = text(now)
  if agent.status ~= 'healthy' then
    change.before.status = change.kind == 'modify' and agent.status or nil
    agent.status = 'healthy'
  end
end

local word, current = 'unchanged', agent.version
if change.spec_changed or change.before.status then
  agent.spec, agent.timeout, agent.eviction, change.agent = spec, timeout, eviction, agent
  local before = found and found.requires or ''
  agent.requires = (edges ~= '' or before ~= '') and edges or nil
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
