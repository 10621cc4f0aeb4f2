--@include text
-- touch_pulse(pulse, outage, now): note that Redis was reachable now. A pause of more than 5 s since the last note, a
-- clock that went backwards, or no note at all is an outage that ended now.
local function touch_pulse(pulse, outage, now)
  local last = tonumber(redis.call('GET', pulse))
  if not last or now < last or now - last > 5000 then
    redis.call('SET', outage, text(now))
  end
  redis.call('SET', pulse, text(now))
end
