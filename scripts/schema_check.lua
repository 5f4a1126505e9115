-- For: what devices say is what was agreed. A message of JSON is held against the schema of its topic; one that does not fit is parked with what is wrong
--      (quarantine: it becomes a dead letter that somebody looks at), or refused, so that the device hears it.
--      MQTT 3 has no reasons: such a device is told that its message was taken, or it would publish the same for ever.
--      Only what clients publish is judged; applications are trusted.
-- Change: SCHEMAS.
-- Try: postroad plugin test scripts/schema_check.lua
--      mosquitto_pub -t devices/7/position -m '{"lat": 200}'; postroad dlq list
--
-- A schema: `type` is "object", "array", "string", "number", "integer" or "boolean". A field is required unless it says `optional = true`.
--   object: `fields`, by name; `closed = true`: no others       array: `items`, `max`
--   string: `max` (bytes), `one_of`                             number, integer: `min`, `max`

-- The first one whose filter matches holds.
local SCHEMAS = {
  {
    filter = "devices/+/position",
    answer = "park",
    schema = {
      type = "object",
      closed = true,
      fields = {
        lat = { type = "number", min = -90, max = 90 },
        lon = { type = "number", min = -180, max = 180 },
        speed = { type = "number", min = 0, optional = true },
        tags = { type = "array", max = 10, items = { type = "string", max = 32 }, optional = true },
      },
    },
  },
  {
    filter = "devices/+/events",
    answer = "refuse",
    schema = {
      type = "object",
      fields = {
        kind = { type = "string", one_of = { "start", "stop", "alarm" } },
        at = { type = "integer", min = 0 },
        source = { type = "object", fields = { id = { type = "string", max = 64 } }, optional = true },
      },
    },
  },
}
-- What is longer is not even read.
local PAYLOAD_BYTES_MAX = 16 * 1024

local valid = postroad.counter("valid")
local parked = postroad.counter("parked")
local refused = postroad.counter("refused")

-- What postroad.json reads as an array has a metatable that is kept from scripts: `false` is all that is seen of it.
local function is_array(value)
  return type(value) == "table" and getmetatable(value) == false
end

local function kind_of(value)
  if value == postroad.null then
    return "null"
  elseif type(value) == "table" then
    return is_array(value) and "array" or "object"
  elseif math.type(value) == "integer" then
    return "integer"
  end
  return type(value)
end

local check -- below; returns nil if the value fits, or what is wrong

local function check_object(value, schema, path)
  for name, field in pairs(schema.fields) do
    local wrong = check(value[name], field, path .. "." .. name)
    if wrong then
      return wrong
    end
  end
  if schema.closed then
    for name in pairs(value) do
      if not schema.fields[name] then
        return path .. ": there is no field " .. name
      end
    end
  end
end

local function check_array(value, schema, path)
  if schema.max and #value > schema.max then
    return ("%s: %d are more than %d"):format(path, #value, schema.max)
  end
  for place, item in ipairs(value) do
    local wrong = check(item, schema.items, ("%s[%d]"):format(path, place))
    if wrong then
      return wrong
    end
  end
end

local function check_string(value, schema, path)
  if schema.max and #value > schema.max then
    return ("%s: longer than %d bytes"):format(path, schema.max)
  end
  if not schema.one_of then
    return nil
  end
  for _, allowed in ipairs(schema.one_of) do
    if value == allowed then
      return nil
    end
  end
  return path .. ": none of " .. table.concat(schema.one_of, ", ")
end

local function check_number(value, schema, path)
  if schema.min and value < schema.min or schema.max and value > schema.max then
    return ("%s: %s is outside %s to %s"):format(path, value, schema.min or "-", schema.max or "-")
  end
end

local CHECKS = {
  object = check_object,
  array = check_array,
  string = check_string,
  number = check_number,
  integer = check_number,
  boolean = function() end,
}

function check(value, schema, path)
  if value == nil then
    return not schema.optional and path .. " is missing" or nil
  end
  local kind = kind_of(value)
  if kind ~= schema.type and not (kind == "integer" and schema.type == "number") then
    return ("%s: expected %s, got %s"):format(path, schema.type, kind)
  end
  return CHECKS[schema.type](value, schema, path)
end

local function check_payload(payload, schema)
  if #payload > PAYLOAD_BYTES_MAX then
    return #payload .. " bytes are more than " .. PAYLOAD_BYTES_MAX
  end
  local value, wrong = postroad.json.decode(payload)
  if value == nil then
    return "no JSON: " .. wrong
  end
  return check(value, schema, "$")
end

local function rule_for(topic)
  for _, rule in ipairs(SCHEMAS) do
    if postroad.match(rule.filter, topic) then
      return rule
    end
  end
end

local function inbound(message)
  local rule = rule_for(message.topic)
  local wrong = rule and check_payload(message.payload, rule.schema)
  if not wrong then
    valid:add()
  elseif rule.answer == "refuse" then
    refused:add()
    return postroad.refuse("payload_format_invalid", wrong)
  else
    parked:add()
    return postroad.park(wrong)
  end
end

local filters = {}
for place, rule in ipairs(SCHEMAS) do
  filters[place] = rule.filter
end

return {
  description = "holds what devices publish against schemas",
  priority = 50,
  on_inbound = { filters = filters, on_error = "closed", run = inbound },
}
