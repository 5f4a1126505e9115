return {
  ["what is too large is cut and sent again"] = function(t)
    local answer = t.dead_letter { topic = "a", payload = ("x"):rep(5000), reason = "too_large" }
    t.equal(answer.action, "requeue")
    t.equal(#answer.letter.payload, 1024)
    t.equal(answer.letter.ttl, 3600)
  end,

  ["what was sent again too often waits for a human"] = function(t)
    local answer = t.dead_letter { topic = "a", reason = "too_large", requeues = 3 }
    t.equal(answer.action, "park")
    t.matches(answer.note, "3 times")
  end,

  ["others stay"] = function(t)
    t.equal(t.dead_letter { topic = "a", reason = "refused" }.action, "keep")
  end,
}
