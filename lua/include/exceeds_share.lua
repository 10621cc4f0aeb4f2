-- exceeds_share(count, total, minimum, max_share): whether count is at least the minimum and above a share of total, percent.
local function exceeds_share(count, total, minimum, max_share)
  return count >= minimum and count * 100 > max_share * total
end
