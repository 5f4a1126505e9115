local function topic_of(t, about)
  about.topic = about.topic or "service/billing/jobs"
  return t.publish(about).messages[1].topic
end

local function mark(t, region, state)
  t.equal(t.publish { topic = "health/" .. region, payload = state, groups = { "operators" } }.action, "keep")
end

return {
  ["the publisher's property says the region"] = function(t)
    t.equal(topic_of(t, { client = "de-7", properties = { region = "ap" } }), "region/ap/billing/jobs")
  end,

  ["else its name does, else the default holds"] = function(t)
    t.equal(topic_of(t, { client = "us-7" }), "region/us/billing/jobs")
    t.equal(topic_of(t, { client = "x" }), "region/eu/billing/jobs")
    t.equal(topic_of(t, { client = "us-7", properties = { region = "mars" } }), "region/us/billing/jobs")
    t.equal(t.counter("at_home"), 3)
  end,

  ["a region that is down is passed over, in order"] = function(t)
    mark(t, "eu", "down")
    t.equal(topic_of(t, { client = "de-7" }), "region/us/billing/jobs")
    mark(t, "us", "down")
    t.equal(topic_of(t, { client = "de-7" }), "region/ap/billing/jobs")
    t.equal(t.counter("fell_back"), 2)
    mark(t, "eu", "up")
    t.equal(topic_of(t, { client = "de-7" }), "region/eu/billing/jobs")
  end,

  ["a mark that nobody repeats is over"] = function(t)
    mark(t, "eu", "down")
    t.advance(59999)
    t.equal(topic_of(t, { client = "de-7" }), "region/us/billing/jobs")
    t.advance(1)
    t.equal(topic_of(t, { client = "de-7" }), "region/eu/billing/jobs")
  end,

  ["a mark outlives a reload"] = function(t)
    mark(t, "eu", "down")
    t.reload()
    t.equal(topic_of(t, { client = "de-7" }), "region/us/billing/jobs")
  end,

  ["with no region up it waits at home"] = function(t)
    for _, region in ipairs { "eu", "us", "ap" } do
      mark(t, region, "down")
    end
    t.equal(topic_of(t, { client = "jp-7" }), "region/ap/billing/jobs")
    t.equal(t.counter("none_healthy"), 1)
  end,

  ["who may not mark a region is refused"] = function(t)
    t.contains(t.publish { topic = "health/eu", payload = "down", groups = { "staff" } }, { action = "refuse", reason = "not_authorized" })
    t.equal(topic_of(t, { client = "de-7" }), "region/eu/billing/jobs")
    t.equal(t.publish { topic = "health/eu", payload = "down", is_application = true }.action, "keep")
    t.equal(topic_of(t, { client = "de-7" }), "region/us/billing/jobs")
  end,

  ["a mark that is delivered here is heard, and reaches everyone"] = function(t)
    t.equal(t.deliver { topic = "health/eu", payload = "down", clients = { "a", "b" } }, { "a", "b" })
    t.equal(topic_of(t, { client = "de-7" }), "region/us/billing/jobs")
  end,

  ["what is no mark changes nothing"] = function(t)
    mark(t, "mars", "down")
    mark(t, "eu", "DOWN")
    mark(t, "eu", "\255\0")
    t.equal(topic_of(t, { client = "de-7" }), "region/eu/billing/jobs")
  end,

  ["a topic without a service is parked"] = function(t)
    t.contains(t.publish { topic = "service" }, { action = "park", note = "expected service/<name>" })
    t.equal(t.publish { topic = "service/" }.action, "park")
  end,
}
