#!lua flags=allow-oom
--[[ pulse — note that Redis is reachable for this replica, and see what keeps the sweep from moving agents on.

  KEYS   pulse      string  {mesh}:pulse
         outage     string  {mesh}:outage
         rewind     string  {mesh}:rewind
         deadlines  zset    {mesh}:deadlines
         counters   hash    {mesh}:counters
         hold       hash    {mesh}:hold
  ARGV   none
  REPLY  ok <now_ms> <outage> <rewind> <overdue> <graced> <holds> <since> <until> <ended> <silent> <healthy>   overdue:
                                agents past their deadline; graced, holds: totals; then the fields of hold. What is not
                                there is ''
  WRITES pulse outage rewind
  EMITS  nothing
  COST   O(log N)
]]
--@include clock
--@include text
--@include pulse
local pulse, outage, rewind, deadlines, counters, hold = unpack(KEYS)

local now = now_ms()
touch_pulse(pulse, outage, rewind, now)
local overdue = redis.call('ZCOUNT', deadlines, '-inf', text(now))
local reply = { 'ok', text(now), redis.call('GET', outage) or '', redis.call('GET', rewind) or '', text(overdue) }
for _, total in ipairs(redis.call('HMGET', counters, 'graced', 'holds')) do
  reply[#reply + 1] = total or '0'
end
for _, field in ipairs(redis.call('HMGET', hold, 'since', 'until', 'ended', 'silent', 'healthy')) do
  reply[#reply + 1] = field or ''
end
return reply
