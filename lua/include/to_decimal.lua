-- text(n): a whole number as decimal digits. Lua's own conversion keeps 14 digits and would round a version.
local function text(number)
  return string.format('%.0f', number)
end
