local OFFER = '{"title": "all shoes are cheap", "price": 7}'

local function offer(t, client, payload)
  return t.publish { topic = "$client/" .. client .. "/offers/1", payload = payload or OFFER }
end

local function is_in_b(t, client)
  return offer(t, client).messages[1].topic:find("/offers-b/", 1, true) ~= nil
end

-- The first client of the group.
local function one_of(t, wanted)
  for number = 1, 1000 do
    if is_in_b(t, "phone-" .. number) == wanted then
      return "phone-" .. number
    end
  end
end

return {
  ["about a tenth gets the variant"] = function(t)
    local count = 0
    for number = 1, 2000 do
      count = count + (is_in_b(t, "phone-" .. number) and 1 or 0)
    end
    t.ok(count > 150 and count < 250, count)
    t.equal({ t.counter("group_b"), t.counter("group_a") }, { count, 2000 - count })
  end,

  ["who gets it gets it always"] = function(t)
    local in_a, in_b = one_of(t, false), one_of(t, true)
    for _ = 1, 3 do
      t.equal({ is_in_b(t, in_a), is_in_b(t, in_b) }, { false, true })
      t.reload()
    end
  end,

  ["the variant is another topic, payload and property"] = function(t)
    local client = one_of(t, true)
    local message = offer(t, client).messages[1]
    t.equal(message.topic, "$client/" .. client .. "/offers-b/1")
    t.equal(postroad.json.decode(message.payload), { title = "all", price = 7, variant = "short-titles" })
    t.equal(message.properties, { experiment = "short-titles/b" })
  end,

  ["the others get what was published, and the property"] = function(t)
    local client = one_of(t, false)
    local message = offer(t, client).messages[1]
    t.equal({ message.topic, message.payload }, { "$client/" .. client .. "/offers/1", OFFER })
    t.equal(message.properties, { experiment = "short-titles/a" })
  end,

  ["what can't be varied goes as it is"] = function(t)
    local client = one_of(t, true)
    for _, payload in ipairs { "", "no JSON", "7", "[]", "{}", '{"title": 7}', "\255" } do
      t.equal(offer(t, client, payload).action, "keep")
    end
    t.equal(t.counter("b_left_as_it_was"), 7)
  end,

  ["other pushes are left alone"] = function(t)
    for _, topic in ipairs { "$client/phone-1/news", "offers/1", "$client/phone-1/offers", "$user/ann/offers/1" } do
      t.equal(t.publish({ topic = topic, payload = OFFER }).action, "keep")
    end
  end,
}
