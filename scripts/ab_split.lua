-- For: an experiment. A stable share of clients gets another variant of what is pushed to them (`$client/<id>/offers/…`): another topic, another field in the
--      JSON, and a property that says which it was. The others get what was published, with the property.
-- Change: EXPERIMENT, and what the variant is (vary).
-- Try: postroad plugin test scripts/ab_split.lua
--      postroad publish '$client/phone-7/offers/1' -m '{"title": "hello"}'
--
-- Who is in which group follows from the names alone: it is the same after a restart and on each shard. A larger share keeps those who were in it.
-- A new name of the experiment deals the cards anew.

local EXPERIMENT = { name = "short-titles", percent = 10 }

local counter_a = postroad.counter("group_a")
local counter_b = postroad.counter("group_b")
local unvaried = postroad.counter("b_left_as_it_was")

-- 0 to 9,999, evenly, from the name.
local function ticket_of(client)
  return postroad.xxh64(EXPERIMENT.name .. "\0" .. client) % 10000
end

local function is_in_b(client)
  return ticket_of(client) < EXPERIMENT.percent * 100
end

-- The variant; nil: what was published can't be varied, and goes as it is.
local function vary(payload)
  local offer = postroad.json.decode(payload)
  if type(offer) ~= "table" or type(offer.title) ~= "string" then
    return nil
  end
  offer.title = offer.title:match("^[^%s]*")
  offer.variant = EXPERIMENT.name
  return postroad.json.encode(offer)
end

local function route(message)
  local client, rest = message.topic:match("^%$client/([^/]+)/offers/(.+)$")
  if not client then
    return
  end
  if not is_in_b(client) then
    counter_a:add()
    message:set_property("experiment", EXPERIMENT.name .. "/a")
    return
  end
  local varied = vary(message.payload)
  if not varied then
    unvaried:add()
    return
  end
  counter_b:add()
  message.payload = varied
  message.topic = "$client/" .. client .. "/offers-b/" .. rest
  message:set_property("experiment", EXPERIMENT.name .. "/b")
end

return {
  description = "a stable share of clients gets another variant of offers",
  priority = 600,
  route = { filters = { "$client/+/offers/#" }, run = route },
  test = {
    ["the share is one"] = function()
      assert(EXPERIMENT.percent >= 0 and EXPERIMENT.percent <= 100)
    end,
  },
}
