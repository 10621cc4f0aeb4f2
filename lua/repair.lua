#!lua flags=allow-oom
--[[ mend — make up to 200 agents what an agent is: a hash that can be read, and a deadline.

  KEYS   deadlines    zset  {mesh}:deadlines
         heartbeats   zset  {mesh}:heartbeats
         silent       zset  {mesh}:silent
         required     hash  {mesh}:required
         agent_keys…  hash  {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   agents…      of each: id; and the version of a hash to throw away, as its spec cannot be read, or ''
  REPLY  ok <orphaned> <dropped> <dated>   how many deadlines or heartbeats without an agent went; how many agents that
                                           could not be read went; how many were given a deadline, to be looked at at once
  WRITES deadlines heartbeats silent required agent_keys
  EMITS  nothing
  COST   O(K log N + edges) for K agents
]]
--@include clock
--@include text
--@include agent
--@include whole
--@include required
local deadlines, heartbeats, silent, required = unpack(KEYS)
local fixed, count = 4, #KEYS - 4
if count > 200 or #ARGV ~= 2 * count then
  return redis.error_reply('ERR mend takes an id and a version of each of at most 200 agents')
end

local now = now_ms()
local orphaned, dropped, dated = 0, 0, 0
for i = 1, count do
  local key, id, unreadable = KEYS[fixed + i], ARGV[2 * i - 1], ARGV[2 * i]
  local agent = read_agent(key)
  if agent and is_whole(agent) and agent.version ~= unreadable then
    if not redis.call('ZSCORE', deadlines, id) then
      redis.call('ZADD', deadlines, text(now), id)
      dated = dated + 1
    end
  else
    if agent then
      count_required(required, agent.requires or '', '')
      redis.call('DEL', key)
      dropped = dropped + 1
    end
    local gone = redis.call('ZREM', deadlines, id) + redis.call('ZREM', heartbeats, id)
    redis.call('ZREM', silent, id)
    if not agent and gone > 0 then
      orphaned = orphaned + 1
    end
  end
end
return { 'ok', orphaned, dropped, dated }
