#!lua flags=allow-oom
--[[ unregister — remove one agent by its own wish.

  KEYS   version     string  {mesh}:version
         log         stream  {mesh}:log
         deadlines   zset    {mesh}:deadlines
         heartbeats  zset    {mesh}:heartbeats
         silent      zset    {mesh}:silent
         counters    hash    {mesh}:counters
         required    hash    {mesh}:required
         agent_key   hash    {mesh}:agent:<id>
  ARGV   id       text
         history  integer, entries the log keeps
  REPLY  removed <version>   the agent is gone; the version is that of its removal
         unknown_agent       never registered, or removed before
  WRITES version log deadlines heartbeats silent counters required agent_key
  EMITS  remove unregistered | nothing
  COST   O(log N + edges)
]]
--@include clock
--@include agent
--@include required
--@include change
local version, log, deadlines, heartbeats, silent, counters, required, agent_key = unpack(KEYS)
local id, history = unpack(ARGV)

local agent = read_agent(agent_key)
if not agent then
  return { 'unknown_agent' }
end
local removed = append_change(version, log, history, now_ms(), {
  kind = 'remove',
  reason = 'unregistered',
  id = id,
  key = agent_key,
  agent = agent,
  heartbeat = redis.call('ZSCORE', heartbeats, id) or '',
  before = {},
})
count_required(required, agent.requires or '', '')
redis.call('ZREM', heartbeats, id)
redis.call('ZREM', deadlines, id)
redis.call('ZREM', silent, id)
redis.call('HINCRBY', counters, 'unregistrations', 1)
return { 'removed', removed }
