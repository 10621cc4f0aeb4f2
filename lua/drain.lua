#!lua flags=allow-oom
--[[ drain — take up to 200 agents out of service, or put them back; they live on as they are.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         heartbeats   zset    {mesh}:heartbeats
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   draining     1 to take them out, 0 to put them back
         history      integer, entries the log keeps
         ids…         the id of each agent
  REPLY  ok <word> <version>…   for each agent, in order, a word and the version of its last change:
         changed                it is as asked from this version on
         unchanged              it was as asked already
         unknown_agent          never registered, or removed; the version is ''
         bad_record             its hash cannot be read; left as it is, the version is ''
  WRITES version log agent_keys
  EMITS  modify drained | modify undrained | nothing
  COST   O(K log N) for K agents
]]
--@include clock
--@include agent
--@include whole
--@include change
local version, log, heartbeats = unpack(KEYS)
local draining, history = unpack(ARGV)
local fixed, count = 3, #KEYS - 3
if count > 200 or #ARGV ~= 2 + count or (draining ~= '0' and draining ~= '1') then
  return redis.error_reply('ERR drain takes 0 or 1 and the id of each of at most 200 agents')
end

local now = now_ms()
local reply = { 'ok' }
for i = 1, count do
  local key, id = KEYS[fixed + i], ARGV[2 + i]
  local agent = read_agent(key)
  local word, at = 'unchanged', ''
  if not agent then
    word = 'unknown_agent'
  elseif not is_whole(agent) then
    word = 'bad_record'
  elseif agent.draining == draining then
    at = agent.version
  else
    local before = agent.draining
    agent.draining = draining
    word, at = 'changed', append_change(version, log, history, now, {
      kind = 'modify',
      reason = draining == '1' and 'drained' or 'undrained',
      id = id,
      key = key,
      agent = agent,
      heartbeat = redis.call('ZSCORE', heartbeats, id) or '',
      before = { draining = before },
    })
  end
  reply[#reply + 1], reply[#reply + 2] = word, at
end
return reply
