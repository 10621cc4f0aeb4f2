#!lua flags=allow-oom
--[[ drain — take up to 200 agents out of service, or back into service; heartbeats and expiry continue.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         log_bytes    hash    {mesh}:log_bytes
         heartbeats   zset    {mesh}:heartbeats
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   draining      1 to drain, 0 to undrain
         log_limits    `<entries> <bytes>` that the log stores
         seen_version  integer, the highest version that the caller has read or returned
         ids…          the id of each agent
  REPLY  ok <word> <version>…   for each agent, in order, an outcome and the version of its last change:
         changed                has the requested state since this version
         unchanged              had the requested state already
         unknown_agent          never registered, or removed; the version is ''
         bad_record             its hash is invalid; nothing was written, the version is ''
  WRITES version log log_bytes agent_keys
  EMITS  modify drained | modify undrained | nothing
  COST   O(K log N) for K agents
]]
--@include now_ms
--@include read_agent
--@include is_valid_agent
--@include append_change
local version, log, log_bytes, heartbeats = unpack(KEYS)
local draining, log_limits, seen_version = unpack(ARGV)
local fixed, count = 4, #KEYS - 4
if count > 200 or #ARGV ~= 3 + count or (draining ~= '0' and draining ~= '1') then
  return redis.error_reply('ERR drain expects 0 or 1 and the id of each of at most 200 agents')
end

local now = now_ms()
local reply = { 'ok' }
for i = 1, count do
  local key, id = KEYS[fixed + i], ARGV[3 + i]
  local agent = read_agent(key)
  local outcome, changed_version = 'unchanged', ''
  if not agent then
    outcome = 'unknown_agent'
  elseif not is_valid_agent(agent) then
    outcome = 'bad_record'
  elseif agent.draining == draining then
    changed_version = agent.version
  else
    local before = agent.draining
    agent.draining = draining
    outcome, changed_version = 'changed', append_change(version, log, log_bytes, log_limits, seen_version, now, {
      kind = 'modify', reason = draining == '1' and 'drained' or 'undrained', id = id, key = key, agent = agent,
      heartbeat = redis.call('ZSCORE', heartbeats, id) or '', before = { draining = before },
    })
  end
  reply[#reply + 1], reply[#reply + 2] = outcome, changed_version
end
return reply
