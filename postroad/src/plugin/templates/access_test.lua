return {
  ["nobody connects without a user"] = function(t)
    local answer = t.connect { client = "device-1" }
    t.equal(answer.allowed, false)
    t.equal(answer.reason, "bad_user_name_or_password")
  end,

  ["the staff has a group"] = function(t)
    t.equal(t.connect { client = "laptop", user = "staff-ann" }.groups, { "staff" })
    t.equal(t.connect { client = "device-1", user = "ann" }.groups, {})
  end,

  ["secrets are the staff's"] = function(t)
    t.equal(t.subscribe { filter = "secret/a", user = "staff-ann" }.qos, 1)
    t.equal(t.subscribe { filter = "secret/a", user = "ann" }.reason, "not_authorized")
    t.equal(t.subscribe { filter = "open/a", user = "ann" }.qos, 1)
  end,
}
