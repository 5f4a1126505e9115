local LARGE = ("x"):rep(5000)

local function die(t, about)
  about.topic = about.topic or "$client/car/news"
  about.client = about.client or "car"
  about.payload = about.payload or "x"
  return t.dead_letter(about)
end

return {
  ["what is too large becomes a note of it"] = function(t)
    local answer = die(t, { reason = "too_large", payload = LARGE })
    t.equal(answer.action, "requeue")
    local note = postroad.json.decode(answer.letter.payload)
    t.equal(note.bytes, 5000)
    t.equal(note.sha256, postroad.hex.encode(postroad.sha256(LARGE)))
    t.ok(note.id)
    t.equal(note.url, "https://example.com/messages/" .. note.id)
    t.ok(#answer.letter.payload < 300)
    t.equal(t.counter("shortened"), 1)
  end,

  ["a note that is too large is parked, not made again"] = function(t)
    t.matches(die(t, { reason = "too_large", payload = LARGE, requeues = 1 }).note, "also after a repair")
    t.matches(die(t, { reason = "too_large", payload = "short" }).note, "with 5 bytes")
    t.equal(t.counter("parked"), 2)
  end,

  ["a push to a device that was moved goes to its successor"] = function(t)
    local answer = die(t, { topic = "$client/truck-7/orders/1", client = "truck-7", is_push = true })
    t.equal(answer.action, "publish")
    t.contains(answer.letter, { topic = "$client/truck-7c/orders/1", payload = "x" })
    t.equal(t.counter("moved"), 1)
  end,

  ["what a moved device had subscribed to is parked"] = function(t)
    t.contains(die(t, { topic = "news", client = "truck-7" }), { action = "park", note = "its device is now truck-7c, and this was no push to it" })
  end,

  ["the same content a second time is dropped"] = function(t)
    t.equal(die(t, { payload = "same" }).action, "park")
    t.equal(die(t, { payload = "same" }).action, "drop")
    t.equal(die(t, { payload = "other" }).action, "park")
    t.equal(die(t, { payload = "same", client = "van" }).action, "park")
    t.equal(die(t, { payload = "same", topic = "$client/car/other" }).action, "park")
    t.equal(t.counter("dropped_as_double"), 1)
  end,

  ["after a day it is no double any more"] = function(t)
    die(t, {})
    t.advance(24 * 3600000)
    t.equal(die(t, {}).action, "park")
  end,

  ["names that run into each other are no doubles"] = function(t)
    t.equal(die(t, { client = "ab", topic = "c" }).action, "park")
    t.equal(die(t, { client = "a", topic = "bc" }).action, "park")
  end,

  ["a repair that dies again is no double"] = function(t)
    t.equal(die(t, { reason = "too_large", payload = LARGE }).action, "requeue")
    t.contains(die(t, { reason = "attempts", payload = LARGE, requeues = 1, attempts = 100 }), {
      action = "park",
      note = "attempts after 100 attempts, 1 requeues",
    })
  end,

  ["what nobody can mend is parked with what is known"] = function(t)
    local answer = die(t, { reason = "refused", attempts = 3, reason_code = 0x99, error = "no such field" })
    t.contains(answer, { action = "park", note = "refused after 3 attempts, 0 requeues, reason code 0x99: no such field" })
  end,

  ["what had no room stays as it is"] = function(t)
    t.equal(die(t, { reason = "overflow" }).action, "keep")
  end,

  ["any bytes can be mended"] = function(t)
    t.equal(die(t, { reason = "too_large", payload = ("\255\0%"):rep(1000) }).action, "requeue")
    t.equal(die(t, { reason = "attempts", payload = "" }).action, "park")
  end,
}
