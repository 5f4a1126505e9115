local function state(message)
  return postroad.json.decode(message.payload)
end

return {
  ["who comes is told of"] = function(t)
    local answer = t.connect { client = "phone-7", user = "ann" }
    t.equal(answer.allowed, true)
    t.contains(answer.besides[1], { topic = "presence/phone-7", retain = true, qos = 1, content_type = "application/json" })
    t.equal(state(answer.besides[1]), { online = true, since = "2026-01-01T00:00:00Z", user = "ann" })
  end,

  ["who goes is told of, with how"] = function(t)
    t.advance(60000)
    local answer = t.disconnect { client = "phone-7", cause = "lost" }
    t.equal(state(answer.besides[1]), { online = false, since = "2026-01-01T00:01:00Z", cause = "lost" })
    t.equal(t.counter("went"), 1)
  end,

  -- Found with a real server: the retained message said that a client had gone which had only come again.
  ["who is taken over is still here"] = function(t)
    t.connect { client = "phone-7" }
    t.connect { client = "phone-7" }
    t.equal(t.disconnect({ client = "phone-7", cause = "lost" }).besides, {})
    t.reload()
    t.equal(#t.disconnect({ client = "phone-7" }).besides, 1)
    t.connect { client = "phone-7" }
    t.equal(#t.disconnect({ client = "phone-7" }).besides, 1)
  end,

  ["who was there before the script is told of when it goes"] = function(t)
    t.equal(#t.disconnect({ client = "phone-7" }).besides, 1)
    t.connect { client = "phone-7" }
    t.equal(#t.disconnect({ client = "phone-7" }).besides, 1)
  end,

  ["without room to count it is told of all the same"] = function(t)
    for place = 1, 10000 do
      postroad.store.set("other" .. place, true)
    end
    t.equal(#t.connect({ client = "phone-7" }).besides, 1)
    t.equal(#t.disconnect({ client = "phone-7" }).besides, 1)
  end,

  ["a client without a user has none"] = function(t)
    t.equal(state(t.connect({ client = "phone-7" }).besides[1]).user, nil)
  end,

  ["names that are no level of a topic are not shown, and let in"] = function(t)
    for _, name in ipairs { "a/b", "#", "a+", "internal-metrics", "" } do
      t.equal(t.connect { client = name }, { allowed = true, groups = {}, besides = {} })
      t.equal(t.disconnect { client = name }, { besides = {} })
    end
    t.equal({ t.counter("came"), t.counter("went") }, { 0, 0 })
  end,
}
