-- For: what matters goes first, and what is old news is not sent. Rules set priority, time to live, collapse key and retries by topic, by the groups of the
--      publisher and by a user property; and `high` is for those who may use it.
-- Change: RULES, and who may publish with `high` (HIGH_FOR).
-- Try: postroad plugin test scripts/priority_rules.lua
--      mosquitto_pub -t fleet/7/alarm -m smoke; postroad top

-- The first rule that matches holds. `filter`; `group`: the publisher is in it; `property`: a user property has this value. Then what is set:
--   priority, ttl (seconds: a shorter one of the publisher stays), retry_attempts_max, retry_age_max
--   collapse: text, in which {topic} and {client} stand for those of the message: only the newest of one key waits
local RULES = {
  { name = "alarms", filter = "fleet/+/alarm", priority = "high", retry_attempts_max = 1000 },
  { name = "positions", filter = "fleet/+/position", priority = "low", ttl = 300, collapse = "{topic}" },
  { name = "vip", filter = "orders/#", property = { "tier", "gold" }, priority = "high", ttl = 86400 },
  { name = "orders", filter = "orders/#", ttl = 86400 },
  { name = "bulk", filter = "#", group = "marketing", priority = "low", ttl = 3600, collapse = "{client}:{topic}" },
}
-- What others publish as `high`, and no rule raises, is made `normal`.
local HIGH_FOR = { operators = true, backends = true }
-- Longest collapse key, in bytes: the server takes no longer one.
local KEY_BYTES_MAX = 255

local counters = { taken_back = postroad.counter("high_taken_back") }
for _, rule in ipairs(RULES) do
  counters[rule] = postroad.counter("rule_" .. rule.name)
end

local function is_in(message, group)
  for _, name in ipairs(message.groups) do
    if name == group then
      return true
    end
  end
  return false
end

local function matches(rule, message)
  return postroad.match(rule.filter, message.topic)
    and (not rule.group or is_in(message, rule.group))
    and (not rule.property or message:property(rule.property[1]) == rule.property[2])
end

local function find_rule(message)
  for _, rule in ipairs(RULES) do
    if matches(rule, message) then
      return rule
    end
  end
end

-- A key that would be too long is its hash.
local function key_of(text, message)
  local values = { topic = message.topic, client = message.client or "" }
  local key = text:gsub("{(%a+)}", values)
  return #key <= KEY_BYTES_MAX and key or postroad.hex.encode(postroad.sha256(key))
end

local function apply(rule, message)
  message.priority = rule.priority or message.priority
  if rule.ttl and (not message.ttl or message.ttl > rule.ttl) then
    message.ttl = rule.ttl
  end
  if rule.collapse then
    message.collapse_key = key_of(rule.collapse, message)
  end
  message.retry_attempts_max = rule.retry_attempts_max or message.retry_attempts_max
  message.retry_age_max = rule.retry_age_max or message.retry_age_max
  counters[rule]:add()
end

local function may_be_high(message)
  if message.is_application then
    return true
  end
  for _, group in ipairs(message.groups) do
    if HIGH_FOR[group] then
      return true
    end
  end
  return false
end

local function route(message)
  if message.priority == "high" and not may_be_high(message) then
    message.priority = "normal"
    counters.taken_back:add()
  end
  local rule = find_rule(message)
  if rule then
    apply(rule, message)
  end
end

return {
  description = "priority, time to live and collapse keys by rules",
  priority = 700,
  route = route,
}
