return {
  ["a message goes to its tenant's tree"] = function(t)
    local answer = t.publish { topic = "in/acme/orders/7", payload = "x", groups = { "staff", "tenant-acme" } }
    t.equal(answer.action, "replace")
    t.equal(#answer.messages, 1)
    t.contains(answer.messages[1], { topic = "tenants/acme/orders/7", payload = "x" })
    t.equal(t.counter("routed"), 1)
  end,

  ["no client writes into the tree of another tenant"] = function(t)
    local answer = t.publish { topic = "in/globex/orders/7", groups = { "tenant-acme" } }
    t.contains(answer, { action = "refuse", reason = "not_authorized" })
    t.equal(t.publish { topic = "in/globex/orders/7" }.action, "refuse")
    t.equal(t.counter("refused"), 2)
  end,

  ["applications speak for every tenant"] = function(t)
    t.equal(t.publish { topic = "in/globex/a", is_application = true }.messages[1].topic, "tenants/globex/a")
  end,

  ["an unknown tenant is parked"] = function(t)
    local answer = t.publish { topic = "in/umbrella/orders", groups = { "tenant-umbrella" } }
    t.contains(answer, { action = "park", note = "no tenant is called umbrella" })
    t.equal(t.counter("parked"), 1)
  end,

  ["a suspended tenant hears it"] = function(t)
    t.contains(t.publish { topic = "in/initech/a", groups = { "tenant-initech" } }, { action = "refuse", reason = "not_authorized" })
  end,

  ["a topic that has no tenant or nothing behind it is parked"] = function(t)
    for _, topic in ipairs { "in", "in/", "in/acme", "in/acme/", "in//orders", "in//in/acme/a" } do
      t.equal(t.publish { topic = topic, groups = { "tenant-acme" } }.action, "park")
    end
  end,

  ["a name that Lua tables have something under is no tenant"] = function(t)
    t.equal(t.publish { topic = "in/__index/a" }.action, "park")
  end,

  ["other topics are left alone"] = function(t)
    t.equal(t.publish { topic = "tenants/acme/orders" }.action, "keep")
    t.equal(t.publish { topic = "inbox/acme" }.action, "keep")
  end,
}
