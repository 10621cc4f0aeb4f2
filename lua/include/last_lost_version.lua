-- last_lost_version(seen_version): the highest version that any replica may have read from a store that lost seen_version.
-- Others may have read later ones than the caller; 60,000 is one minute at 1,000 changes per second.
local function last_lost_version(seen_version)
  return tonumber(seen_version) + 60000
end
