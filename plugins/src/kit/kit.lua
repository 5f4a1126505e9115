-- What a test knows as `t`. `ask(name, about)` is the only way out of here: it answers `true, answer` or `false, what is wrong`.
-- Errors are raised at the line of the test that called: level 2 is the caller of a function of `t`.
local ask, names = ...

local t = {}

local function is_word(key)
  return type(key) == "string" and key:find("^[%a_][%w_]*$") ~= nil
end

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(left, right)
    if type(left) == type(right) and type(left) ~= "boolean" then
      return left < right
    end
    return tostring(left) < tostring(right)
  end)
  return keys
end

-- A value as one would write it. What is deep is cut off: a table may have itself in it.
local function show(value, depth)
  depth = depth or 0
  if type(value) == "string" then
    local text = #value > 200 and value:sub(1, 200) or value
    text = '"' .. text:gsub('[%c"\\\128-\255]', function(byte)
      if byte == '"' or byte == "\\" then
        return "\\" .. byte
      end
      return byte == "\n" and "\\n" or ("\\x%02x"):format(byte:byte())
    end) .. '"'
    return #value > 200 and ("%s… (%d bytes)"):format(text, #value) or text
  end
  if type(value) ~= "table" then
    return tostring(value)
  end
  if depth > 8 then
    return "{…}"
  end
  local parts, length = {}, #value
  for place = 1, length do
    parts[place] = show(value[place], depth + 1)
  end
  for _, key in ipairs(sorted_keys(value)) do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then
      local name = is_word(key) and key or "[" .. show(key, depth + 1) .. "]"
      parts[#parts + 1] = name .. " = " .. show(value[key], depth + 1)
    end
  end
  return #parts == 0 and "{}" or "{ " .. table.concat(parts, ", ") .. " }"
end

local function step(path, key)
  if is_word(key) then
    return path == "" and key or path .. "." .. key
  end
  return path .. "[" .. show(key) .. "]"
end

-- Appends each place at which two values differ.
local function differences(got, expected, path, found, depth)
  if type(got) ~= "table" or type(expected) ~= "table" or depth > 30 then
    if got ~= expected then
      found[#found + 1] = { path = path, got = got, expected = expected }
    end
    return
  end
  local both = {}
  for key in pairs(got) do
    both[key] = true
  end
  for key in pairs(expected) do
    both[key] = true
  end
  for _, key in ipairs(sorted_keys(both)) do
    differences(got[key], expected[key], step(path, key), found, depth + 1)
  end
end

local SHOWN_MAX = 10

local function described(found)
  local lines = {}
  for place = 1, math.min(#found, SHOWN_MAX) do
    local difference = found[place]
    if difference.path ~= "" then
      lines[#lines + 1] = "at " .. difference.path
    end
    lines[#lines + 1] = "  expected " .. show(difference.expected)
    lines[#lines + 1] = "  got      " .. show(difference.got)
  end
  if #found > SHOWN_MAX then
    lines[#lines + 1] = ("and %d more differences"):format(#found - SHOWN_MAX)
  end
  return table.concat(lines, "\n")
end

-- Both are equal, tables by what is in them.
function t.equal(got, expected)
  local found = {}
  differences(got, expected, "", found, 0)
  if #found > 0 then
    error("not equal\n" .. described(found), 2)
  end
end

-- It is neither false nor nil.
function t.ok(value, what)
  if not value then
    error(("%s\n  expected something true\n  got      %s"):format(what or "not ok", show(value)), 2)
  end
  return value
end

local function is_list(value)
  return type(value) == "table" and #value > 0
end

local function holds(whole, part)
  if type(whole) == "string" and type(part) == "string" then
    return whole:find(part, 1, true) ~= nil
  end
  if type(whole) ~= "table" then
    return whole == part
  end
  if is_list(whole) and not is_list(part) then
    for _, item in ipairs(whole) do
      if item == part or type(item) == type(part) and type(item) == "table" and holds(item, part) then
        return true
      end
    end
    return false
  end
  if type(part) ~= "table" then
    return false
  end
  for key, value in pairs(part) do
    local there = whole[key]
    if there ~= value and not (type(there) == "table" and holds(there, value)) then
      return false
    end
  end
  return true
end

-- The text holds the other one; the list holds the value; the table has all that the other one has.
function t.contains(whole, part)
  if not holds(whole, part) then
    error(("does not contain\n  expected %s\n  in       %s"):format(show(part), show(whole)), 2)
  end
end

-- The text matches a pattern of Lua.
function t.matches(text, pattern)
  if type(text) ~= "string" or not text:find(pattern) then
    error(("does not match\n  expected %s\n  got      %s"):format(show(pattern), show(text)), 2)
  end
end

-- The function raises an error, whose text matches; gives the text.
function t.raises(call, pattern)
  local went_well, text = pcall(call)
  if went_well then
    error("no error was raised", 2)
  end
  text = type(text) == "string" and text or show(text)
  if pattern and not text:find(pattern) then
    error(("another error was raised\n  expected %s\n  got      %s"):format(show(pattern), show(text)), 2)
  end
  return text
end

-- Fails.
function t.fail(text)
  error(text or "failed", 2)
end

t.show = show

for _, name in ipairs(names) do
  t[name] = function(...)
    local went_well, answer = ask(name, ...)
    if not went_well then
      error(answer, 2)
    end
    return answer
  end
end

local function stream(bytes, client)
  return { bytes = bytes, client = client }
end

-- What the first frame of some bytes is; `client` is the name that the connection's hello gave.
function t.decode(bytes, client)
  local went_well, answer = ask("decode", stream(bytes, client))
  if not went_well then
    error(answer, 2)
  end
  return answer
end

-- Of each frame what somebody expects something of; of those that nobody expects all.
local function looked_at(frames, expected)
  local seen = {}
  for place, frame in ipairs(frames) do
    seen[place] = {}
    for key in pairs(expected[place] or frame) do
      seen[place][key] = frame[key]
    end
  end
  return seen
end

-- The stream says these frames, wherever the network cuts it: each has what is expected of it. Gives all frames.
function t.every_split(bytes, expected, client)
  local went_well, frames = ask("every_split", stream(bytes, client))
  if not went_well then
    error(frames, 2)
  end
  local found = {}
  differences(looked_at(frames, expected or {}), expected or {}, "", found, 0)
  if expected and #found > 0 then
    error("other frames than expected\n" .. described(found), 2)
  end
  return frames
end

-- Shown below the case's line, whether it fails or not.
function t.print(...)
  local parts = {}
  for place = 1, select("#", ...) do
    local part = select(place, ...)
    parts[place] = type(part) == "string" and part or show(part)
  end
  ask("print", table.concat(parts, " "))
end

return setmetatable(t, {
  __index = function(_, name)
    local _, text = ask(tostring(name))
    error(text, 2)
  end,
})
