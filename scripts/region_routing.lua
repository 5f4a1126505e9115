-- For: services that run in several regions. What is published to `service/<name>/…` goes to `region/<region>/<name>/…`, with the region of the
--      publisher; while that one is marked as down, to the next in its order.
-- Change: ORDER, REGION_BY_PREFIX, DEFAULT, and who may mark a region (MARKERS).
-- Try: postroad plugin test scripts/region_routing.lua
--      mosquitto_pub -V 5 -D publish user-property region eu -t service/billing/jobs -m 7
--      postroad publish health/eu -m down       or by MQTT, as a user of the group `operators`
--
-- A mark lasts for MARK_SECONDS: who watches a region repeats it while the region is down. A watcher that dies so leaves no region closed for ever.
-- Marks are in `postroad.store`, which each shard has for itself. A shard learns of a mark when `health/…` is published there, or delivered to a
-- client of it: let each worker subscribe to `health/+`. A shard that knows of no mark takes the region for healthy.

local ORDER = {
  eu = { "eu", "us", "ap" },
  us = { "us", "eu", "ap" },
  ap = { "ap", "us", "eu" },
}
local REGION_BY_PREFIX = { ["de-"] = "eu", ["fr-"] = "eu", ["us-"] = "us", ["jp-"] = "ap" }
local DEFAULT = "eu"
local MARKERS = "operators"
local MARK_SECONDS = 60

local at_home = postroad.counter("at_home")
local fell_back = postroad.counter("fell_back")
local none_healthy = postroad.counter("none_healthy")

-- The publisher says it; else its name does.
local function region_of(message)
  local said = message:property("region")
  if said and ORDER[said] then
    return said
  end
  return REGION_BY_PREFIX[(message.client or ""):sub(1, 3)] or DEFAULT
end

local function is_up(region)
  return not postroad.store.get("down:" .. region)
end

local function choose(home)
  for place, region in ipairs(ORDER[home]) do
    if is_up(region) then
      (place == 1 and at_home or fell_back):add()
      return region
    end
  end
  -- It waits at home: what is stored for a worker that is away is not lost.
  none_healthy:add()
  return home
end

local function may_mark(message)
  if message.is_application then
    return true
  end
  for _, group in ipairs(message.groups) do
    if group == MARKERS then
      return true
    end
  end
  return false
end

local function mark(message)
  local region = message.topic:match("^health/([^/]+)$")
  if not region or not ORDER[region] then
    return
  end
  if message.payload == "down" then
    postroad.store.set("down:" .. region, true, MARK_SECONDS)
  elseif message.payload == "up" then
    postroad.store.delete("down:" .. region)
  end
end

local function route(message)
  if message.topic:sub(1, 7) == "health/" then
    if not may_mark(message) then
      return postroad.refuse("not_authorized", "only " .. MARKERS .. " mark regions")
    end
    return mark(message)
  end
  local rest = message.topic:match("^service/(.+)$")
  if not rest then
    return postroad.park("expected service/<name>")
  end
  message.topic = "region/" .. choose(region_of(message)) .. "/" .. rest
end

return {
  description = "service/… goes to the publisher's region, or the next one that is up",
  priority = 200,
  route = { filters = { "service/#", "health/+" }, on_error = "closed", run = route },
  -- It was judged where it was published; here it is only heard.
  on_deliver = { filters = { "health/+" }, run = function(message) mark(message) end },
}
