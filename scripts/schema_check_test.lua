local function position(t, payload)
  return t.publish { topic = "devices/7/position", payload = payload, client = "device-7" }
end

local function event(t, payload)
  return t.publish { topic = "devices/7/events", payload = payload, client = "device-7" }
end

return {
  ["what fits goes on"] = function(t)
    t.equal(position(t, '{"lat": 48.1, "lon": 11.5}').action, "keep")
    t.equal(position(t, '{"lat": -90, "lon": 180, "speed": 0, "tags": ["a", "b"]}').action, "keep")
    t.equal(position(t, '{"lat": 1, "lon": 1, "tags": []}').action, "keep")
    t.equal(event(t, '{"kind": "alarm", "at": 1767225600000, "more": {"x": 1}}').action, "keep")
    t.equal(t.counter("valid"), 4)
  end,

  ["what does not fit is parked with what is wrong"] = function(t)
    for payload, wrong in pairs {
      ['{"lat": 48.1}'] = "$.lon is missing",
      ['{"lat": "48.1", "lon": 1}'] = "$.lat: expected number, got string",
      ['{"lat": 91, "lon": 1}'] = "$.lat: 91 is outside -90 to 90",
      ['{"lat": null, "lon": 1}'] = "$.lat: expected number, got null",
      ['{"lat": 1, "lon": 1, "speed": -0.5}'] = "$.speed: -0.5 is outside 0 to -",
      ['{"lat": 1, "lon": 1, "colour": 1}'] = "$: there is no field colour",
      ['{"lat": 1, "lon": 1, "tags": {}}'] = "$.tags: expected array, got object",
      ['{"lat": 1, "lon": 1, "tags": ["a", 1]}'] = "$.tags[2]: expected string, got integer",
      ["[1, 2]"] = "$: expected object, got array",
      ["[]"] = "$: expected object, got array",
      ["7"] = "$: expected object, got integer",
      ["null"] = "$: expected object, got null",
    } do
      t.contains(position(t, payload), { action = "park", note = wrong })
    end
    t.equal({ t.counter("parked"), t.counter("valid") }, { 12, 0 })
  end,

  ["a list is not longer than was agreed, nor is a text"] = function(t)
    local tags = ('"a",'):rep(10) .. '"a"'
    t.equal(position(t, '{"lat":1,"lon":1,"tags":[' .. tags .. "]}").note, "$.tags: 11 are more than 10")
    t.equal(position(t, '{"lat":1,"lon":1,"tags":["' .. ("a"):rep(33) .. '"]}').note, "$.tags[1]: longer than 32 bytes")
  end,

  ["where the schema says so the device hears it"] = function(t)
    for _, payload in ipairs {
      '{"kind": "pause", "at": 1}', '{"kind": "stop"}', '{"kind": "stop", "at": 1.5}', '{"kind": "stop", "at": true}',
      '{"kind": "stop", "at": 1, "source": {}}', '{"kind": "stop", "at": 1, "source": []}',
    } do
      t.contains(event(t, payload), { action = "refuse", reason = "payload_format_invalid" })
    end
    t.equal(t.counter("refused"), 6)
  end,

  ["what is no JSON is parked"] = function(t)
    for _, payload in ipairs { "", "{", "\255\254", '{"lat": 1, "lon": 1} x', "{'lat': 1}", ("["):rep(1000) } do
      t.matches(position(t, payload).note, "^no JSON: ")
    end
  end,

  ["what is very long is not read"] = function(t)
    t.equal(position(t, (" "):rep(16385)).note, "16385 bytes are more than 16384")
  end,

  ["applications are not judged"] = function(t)
    t.equal(t.publish({ topic = "devices/7/position", payload = "x", is_application = true }).action, "keep")
  end,

  ["other topics are not judged"] = function(t)
    t.equal(t.publish({ topic = "devices/7/log", payload = "x" }).action, "keep")
    t.equal(t.publish({ topic = "devices/7/position/raw", payload = "x" }).action, "keep")
    t.equal(t.counter("valid"), 0)
  end,
}
