-- to_decimal(number): an integer as decimal digits. Lua's own conversion rounds to 14 digits, too few for a version.
local function to_decimal(number)
  return string.format('%.0f', number)
end
