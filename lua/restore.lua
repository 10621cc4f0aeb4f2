#!lua
--[[ restore — put up to 200 agents back as they were kept; one that is there by now is newer, and stays.

  KEYS   version      string  {mesh}:version
         log          stream  {mesh}:log
         deadlines    zset    {mesh}:deadlines
         heartbeats   zset    {mesh}:heartbeats
         silent       zset    {mesh}:silent
         required     hash    {mesh}:required
         agent_keys…  hash    {mesh}:agent:<id>, one for each agent, at most 200
  ARGV   history      integer, entries the log keeps
         agents…      of each: id; spec, canonical JSON; status; draining, 0 or 1; created and updated, the server's ms;
                      timeout and eviction, ms; heartbeat, the server's ms or ''; rest, ms until its status changes next; edges, as register
                      takes them
  REPLY  ok <restored> <kept>   how many were put back, and how many were there
  WRITES version log deadlines heartbeats silent required agent_keys
  EMITS  add restored | nothing
  COST   O(K log N + edges) for K agents
]]
--@include clock
--@include text
--@include agent
--@include whole
--@include required
--@include change
local version, log, deadlines, heartbeats, silent, required = unpack(KEYS)
local history = unpack(ARGV)
local fixed, count, width = 6, #KEYS - 6, 11
if count > 200 or #ARGV ~= 1 + width * count then
  return redis.error_reply('ERR restore takes eleven fields of each of at most 200 agents')
end

local now = now_ms()
local restored, kept = 0, 0
for i = 1, count do
  local key, at = KEYS[fixed + i], 1 + width * (i - 1)
  local id, spec, status, draining, created, updated, timeout, eviction = unpack(ARGV, at + 1, at + 8)
  local heartbeat, rest, edges = unpack(ARGV, at + 9, at + width)
  local found = read_agent(key)
  if found and is_whole(found) then
    kept = kept + 1
  else
    -- A clock that was set back must not leave heartbeats in the future, which no later one could move.
    heartbeat = heartbeat ~= '' and text(math.min(tonumber(heartbeat), now)) or ''
    append_change(version, log, history, now, {
      kind = 'add',
      reason = 'restored',
      id = id,
      key = key,
      agent = {
        spec = spec, status = status, draining = draining, created = created, timeout = timeout, eviction = eviction,
        requires = edges ~= '' and edges or nil,
      },
      heartbeat = heartbeat,
      before = {},
      spec_changed = true,
      updated = updated,
      anew = found ~= nil,
    })
    count_required(required, found and found.requires or '', edges)
    redis.call('ZREM', silent, id)
    if heartbeat ~= '' then
      redis.call('ZADD', heartbeats, heartbeat, id)
      if status == 'degraded' or status == 'expired' then
        redis.call('ZADD', silent, heartbeat, id)
      end
    end
    redis.call('ZADD', deadlines, text(now + rest), id)
    restored = restored + 1
  end
end
return { 'ok', restored, kept }
