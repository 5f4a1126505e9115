local HOUR = 3600000

local function push(t, about)
  about = about or {}
  about.topic = about.topic or "$user/ann/news"
  return t.publish(about)
end

local function push_many(t, count)
  for _ = 1, count do
    t.equal(push(t).action, "keep")
  end
end

return {
  ["up to the cap nothing is changed"] = function(t)
    push_many(t, 20)
    t.equal({ t.counter("deferred"), t.counter("dropped") }, { 0, 0 })
  end,

  ["what is more waits for the next hour, then for later ones, then is dropped"] = function(t)
    local begin = t.now()
    push_many(t, 20)
    for hour = 1, 3 do
      for _ = 1, 20 do
        t.equal(push(t).messages[1].deliver_at, begin + hour * HOUR)
      end
    end
    t.equal(push(t).action, "drop")
    t.equal({ t.counter("deferred"), t.counter("dropped") }, { 60, 1 })
  end,

  ["who has booked places in an hour has fewer left in it"] = function(t)
    push_many(t, 20)
    for _ = 1, 5 do
      push(t)
    end
    t.advance(HOUR)
    push_many(t, 15)
    t.equal(push(t).action, "replace")
  end,

  ["each user has a cap"] = function(t)
    push_many(t, 20)
    t.equal(push(t, { topic = "$user/bob/news" }).action, "keep")
    t.equal(push(t).action, "replace")
  end,

  ["what is put off by its publisher counts in its hour"] = function(t)
    local at = t.now() + 5 * HOUR
    for _ = 1, 20 do
      t.equal(push(t, { deliver_at = at }).action, "keep")
    end
    t.equal(push(t, { deliver_at = at }).messages[1].deliver_at, at + HOUR)
    t.equal(push(t).action, "keep")
  end,

  ["what is urgent is not counted"] = function(t)
    push_many(t, 20)
    t.equal(push(t, { priority = "high" }).action, "keep")
  end,

  ["a publisher above its cap is refused until the minute is over"] = function(t)
    for _ = 1, 600 do
      t.equal(t.publish({ topic = "a", user = "shop" }).action, "keep")
    end
    t.contains(t.publish { topic = "a", user = "shop" }, { action = "refuse", reason = "quota_exceeded" })
    t.equal(t.counter("refused"), 1)
    t.equal(t.publish({ topic = "a", user = "other" }).action, "keep")
    t.equal(t.publish({ topic = "a" }).action, "keep")
    t.advance(60000)
    t.equal(t.publish({ topic = "a", user = "shop" }).action, "keep")
  end,

  ["counts outlive a reload"] = function(t)
    push_many(t, 20)
    t.reload()
    t.equal(push(t).action, "replace")
  end,

  ["a store without room holds nobody back"] = function(t)
    for place = 1, 10000 do
      postroad.store.set("other" .. place, true)
    end
    for _ = 1, 30 do
      t.equal(push(t).action, "keep")
    end
    t.equal(t.counter("uncounted"), 30)
  end,

  ["odd topics are no pushes to a user"] = function(t)
    for _ = 1, 30 do
      t.equal(push(t, { topic = "$user/ann" }).action, "keep")
      t.equal(push(t, { topic = "user/ann/news" }).action, "keep")
    end
  end,
}
