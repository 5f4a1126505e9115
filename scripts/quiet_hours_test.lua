-- The clock of a case begins at 2026-01-01T00:00:00Z.
local HOUR = 3600000

local function go_to(t, hours)
  t.advance(math.floor(hours * HOUR))
end

-- When it is delivered, in hours from the beginning of the year; nil: at once.
local function hour_of(t, about)
  local begin = 1767225600000
  about.topic = about.topic or "$client/uk-phone/news"
  local at = t.publish(about).messages[1].deliver_at
  return at and (at - begin) / HOUR
end

return {
  ["at night it waits for the morning"] = function(t)
    t.equal(hour_of(t, {}), 7.0)
    go_to(t, 6.999)
    t.equal(hour_of(t, {}), 7.0)
    t.equal(t.counter("delayed"), 2)
  end,

  ["by day it goes at once"] = function(t)
    go_to(t, 7)
    t.equal(hour_of(t, {}), nil)
    go_to(t, 14.99)
    t.equal(hour_of(t, {}), nil)
    go_to(t, 0.01)
    t.equal(hour_of(t, {}), 31.0)
  end,

  ["the client's name says its zone"] = function(t)
    t.equal(hour_of(t, { topic = "$client/de-phone/news" }), 6.0)
    t.equal(hour_of(t, { topic = "$user/in-ann/news" }), 1.5)
    t.equal(hour_of(t, { topic = "$client/ny-phone/news" }), nil) -- seven in the evening
    t.equal(hour_of(t, { topic = "$client/phone-boss/news" }), nil) -- four in the afternoon
  end,

  ["the property is above the name"] = function(t)
    t.equal(hour_of(t, { topic = "$client/ny-phone/news", properties = { ["utc-offset"] = "+02:00" } }), 5.0)
    t.equal(hour_of(t, { properties = { ["utc-offset"] = "+5" } }), 2.0)
    t.equal(hour_of(t, { properties = { ["utc-offset"] = "-0330" } }), nil) -- half past eight in the evening
    go_to(t, 2)
    t.equal(hour_of(t, { properties = { ["utc-offset"] = "-0330" } }), 10.5)
  end,

  ["a bad offset is counted, and the table holds"] = function(t)
    for place, offset in ipairs { "", "02:00", "+99:00", "+02:60", "+2:3", "east", "+02:00:00" } do
      t.equal(hour_of(t, { topic = "$client/de-phone/news", properties = { ["utc-offset"] = offset } }), 6.0)
      t.equal(t.counter("bad_offsets"), place)
    end
  end,

  ["what is urgent goes through"] = function(t)
    t.equal(t.publish { topic = "$client/uk-phone/alarm", priority = "high" }.action, "keep")
    t.equal(t.counter("passed_as_high"), 1)
  end,

  ["what expires in the night is dropped, what lives longer waits"] = function(t)
    t.equal(t.publish { topic = "$client/uk-phone/taxi", ttl = 7 * 3600 }.action, "drop")
    t.equal(t.counter("dropped_as_old"), 1)
    t.equal(hour_of(t, { ttl = 7 * 3600 + 1 }), 7.0)
  end,

  ["what is put off into a night is put off to its end"] = function(t)
    t.equal(hour_of(t, { deliver_at = t.now() + 25 * HOUR }), 31.0)
    t.equal(hour_of(t, { deliver_at = t.now() + 12 * HOUR }), 12.0)
  end,

  ["only pushes to one client or user wait"] = function(t)
    for _, topic in ipairs { "news", "$group/all/news", "$clients/uk-phone/news" } do
      t.equal(t.publish { topic = topic }.action, "keep")
    end
  end,
}
