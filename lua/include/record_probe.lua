--@include text
-- touch_pulse(pulse, outage, rewind, now): note that Redis was reachable now. A pause of more than 5 s since the last
-- note, a clock that went back, or no note at all is an outage that ended now: `outage` tells that moment and the last
-- note before it. A clock that went back leaves times in the future, too: `rewind` asks the leader to set them right.
local function touch_pulse(pulse, outage, rewind, now)
  local last = tonumber(redis.call('GET', pulse))
  if not last or now < last or now - last > 5000 then
    redis.call('SET', outage, text(now) .. ' ' .. (last and text(last) or ''))
  end
  if last and now < last then
    redis.call('SET', rewind, text(now))
  end
  redis.call('SET', pulse, text(now))
end
