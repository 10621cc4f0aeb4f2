--@include text
-- is_held(keys, brake, leaving, now): whether nobody may be moved on, as so many fell silent that it is rather the
-- network; begins and ends the hold. `leaving` healthy agents are overdue; brake: window and duration in ms, share in
-- percent, minimum. Of those ever heard (`heartbeats`) all are healthy but those in `silent`, by when they fell silent;
-- who unregisters is in neither. After a hold the next waits for a whole window below the share.
local function is_held(keys, brake, leaving, now)
  local ends, ended, below = unpack(redis.call('HMGET', keys.hold, 'until', 'ended', 'below'))
  if ends and not ended then
    if ends - now > brake.duration then
      ends = text(now + brake.duration)
      redis.call('HSET', keys.hold, 'until', ends)
    end
    if tonumber(ends) > now then
      return true
    end
    ended = ends
    redis.call('HSET', keys.hold, 'ended', ends)
  end
  local long = redis.call('ZCOUNT', keys.silent, '-inf', text(now - brake.window))
  local lost = redis.call('ZCARD', keys.silent) - long + leaving
  local base = redis.call('ZCARD', keys.heartbeats) - long
  local above = lost >= brake.minimum and lost * 100 > brake.share * base
  if above and not ended then
    ends = text(now + brake.duration)
    redis.call('HSET', keys.hold, 'since', text(now), 'until', ends, 'silent', text(lost), 'healthy', text(base))
    redis.call('HINCRBY', keys.counters, 'holds', 1)
  elseif above then
    redis.call('HDEL', keys.hold, 'below')
  elseif ended and (not below or tonumber(below) > now) then
    redis.call('HSET', keys.hold, 'below', text(now))
  elseif ended and now - below >= brake.window then
    redis.call('DEL', keys.hold)
  end
  return above and not ended
end
