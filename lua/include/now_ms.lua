-- now_ms(): the Redis server's time in milliseconds, the only clock whose time is stored.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
