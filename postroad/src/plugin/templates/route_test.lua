return {
  ["a message goes to its tenant"] = function(t)
    local answer = t.publish { topic = "in/temperature", payload = "21", user = "acme" }
    t.equal(answer.action, "replace")
    t.equal(answer.messages[1].topic, "tenants/acme/in/temperature")
  end,

  ["an empty message goes to nobody"] = function(t)
    t.equal(t.publish { topic = "in/temperature" }.action, "drop")
  end,

  ["other topics stay as they are"] = function(t)
    t.equal(t.publish { topic = "out/x" }.action, "keep")
  end,
}
