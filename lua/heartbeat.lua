#!lua flags=allow-oom
--[[ heartbeat — prolong the life of up to 200 agents.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         deadlines    zset    {mesh}:deadlines
         heartbeats   zset    {mesh}:heartbeats
         silent       zset    {mesh}:silent
         pulse        string  {mesh}:pulse
         outage       string  {mesh}:outage
         rewind       string  {mesh}:rewind
         counters     hash    {mesh}:counters
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   history      integer, entries the log keeps
         agents…      id, mode, load and answered of each: beat prolongs any agent and makes it healthy, keep
                      prolongs a healthy one and leaves any other as it is, note leaves each as it is;
                      load and answered are stored without a change, '' leaves what is there
  REPLY  ok <now_ms> <word>…   one word for each agent, in order; where no digest is told and one is stored, it follows
                               after a blank:
         healthy                       prolonged, or healthy anyway
         pending degraded expired      only for keep and note: left as it is
         unknown_agent                 never registered, or removed
         bad_record                    its hash cannot be read; left as it is
  WRITES version log deadlines heartbeats silent pulse outage rewind counters agent_keys
  EMITS  modify first_heartbeat | modify recovered | nothing
  COST   O(K log N) for K agents
]]
--@include clock
--@include text
--@include note
--@include tell
--@include recovery
--@include pulse
--@include change
local version, log, deadlines, heartbeats, silent, pulse, outage, rewind, counters = unpack(KEYS)
local history = unpack(ARGV)
local fixed, count = 9, #KEYS - 9
if count > 200 or #ARGV ~= 1 + 4 * count then
  return redis.error_reply('ERR heartbeat takes an id, a mode, a load and a digest for each of at most 200 agents')
end

local now = now_ms()
local stamp = text(now)
touch_pulse(pulse, outage, rewind, now)

local reply, beats = { 'ok', stamp }, 0
for i = 1, count do
  local key, id, mode, load, answered = KEYS[fixed + i], unpack(ARGV, 4 * i - 2, 4 * i + 1)
  local known = redis.pcall('HMGET', key, 'status', 'timeout', 'answered')
  local status, timeout = known[1], tonumber(known[2])
  if known.err or (status and not timeout) then
    reply[i + 2] = 'bad_record'
  elseif not status then
    reply[i + 2] = 'unknown_agent'
  else
    note(key, 'load', load)
    local told = tell(key, answered, known[3])
    if mode == 'beat' or mode == 'keep' and status == 'healthy' then
      if status ~= 'healthy' then
        append_change(version, log, history, now, recovery(key, id, stamp))
        redis.call('ZREM', silent, id)
      end
      redis.call('ZADD', heartbeats, stamp, id)
      redis.call('ZADD', deadlines, text(now + timeout), id)
      status, beats = 'healthy', beats + 1
    end
    reply[i + 2] = status .. told
  end
end
redis.call('HINCRBY', counters, 'heartbeats', beats)
return reply
