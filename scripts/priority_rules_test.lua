local function first(t, about)
  return t.publish(about).messages[1]
end

return {
  ["an alarm is high"] = function(t)
    t.contains(first(t, { topic = "fleet/7/alarm" }), { priority = "high", retry_attempts_max = 1000 })
    t.equal(t.counter("rule_alarms"), 1)
  end,

  ["of positions only the newest waits, and not for long"] = function(t)
    local message = first(t, { topic = "fleet/7/position" })
    t.contains(message, { priority = "low", ttl = 300, collapse_key = "fleet/7/position" })
  end,

  ["a shorter time to live of the publisher stays, a longer one does not"] = function(t)
    t.equal(first(t, { topic = "fleet/7/position", ttl = 10 }).ttl, 10)
    t.equal(first(t, { topic = "fleet/7/position", ttl = 1000 }).ttl, 300)
  end,

  ["a property makes an order one of gold"] = function(t)
    t.equal(first(t, { topic = "orders/1", properties = { tier = "gold" } }).priority, "high")
    t.equal(first(t, { topic = "orders/1", properties = { tier = "iron" } }).priority, "normal")
    t.equal({ t.counter("rule_vip"), t.counter("rule_orders") }, { 1, 1 })
  end,

  ["a group makes it bulk"] = function(t)
    t.contains(first(t, { topic = "news/1", groups = { "marketing" }, client = "mailer" }), { priority = "low", collapse_key = "mailer:news/1" })
    t.equal(t.publish({ topic = "news/1", groups = { "staff" } }).action, "keep")
  end,

  ["high is for those who may use it"] = function(t)
    t.equal(first(t, { topic = "news/1", priority = "high" }).priority, "normal")
    t.equal(first(t, { topic = "news/1", priority = "high", groups = { "backends" } }).priority, "high")
    t.equal(first(t, { topic = "news/1", priority = "high", is_application = true }).priority, "high")
    t.equal(t.counter("high_taken_back"), 1)
  end,

  ["a long topic still has a key"] = function(t)
    local topic = "fleet/" .. ("x"):rep(400) .. "/position"
    local key = first(t, { topic = topic }).collapse_key
    t.equal(key, postroad.hex.encode(postroad.sha256(topic)))
  end,

  ["what no rule names is left alone"] = function(t)
    t.equal(t.publish({ topic = "a/b", priority = "low", ttl = 5 }).action, "keep")
    t.equal(t.publish({ topic = "$client/a/b" }).action, "keep")
  end,
}
