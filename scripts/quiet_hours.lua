-- For: nobody's phone rings at night. What is pushed to one client or user (`$client/<id>/…`, `$user/<user>/…`) in the quiet hours of its zone waits
--      until they are over. `priority = "high"` goes through. What would have expired by then is dropped: in the morning it is old news.
-- Change: FROM and TO, ZONES, DEFAULT_OFFSET.
-- Try: postroad plugin test scripts/quiet_hours.lua
--      postroad publish '$client/phone-7/news' -m hello --property utc-offset=+02:00
--      postroad scheduled list
--
-- An offset is fixed: the server knows nothing of daylight saving time. Who needs that sends the offset of the day as the property `utc-offset`, or
-- changes ZONES twice a year and reloads.
-- Pushes to `$group/…` go to members in many zones, and are left alone.

-- Local time, in minutes of the day. FROM may be later than TO: then the hours go over midnight.
local FROM, TO = 22 * 60, 7 * 60
-- Minutes east of Greenwich, by the name of the client or user: an exact one, or the part before the first "-".
local ZONES = {
  de = 60,
  uk = 0,
  ["in"] = 330,
  ny = -300,
  ["phone-boss"] = -480,
}
local DEFAULT_OFFSET = 0

local DAY = 24 * 60
local MINUTE_MS = 60000

local delayed = postroad.counter("delayed")
local passed = postroad.counter("passed_as_high")
local dropped = postroad.counter("dropped_as_old")
local bad_offsets = postroad.counter("bad_offsets")

-- "+02:00", "-0330" or "+5"; nil if it is none.
local function parse_offset(text)
  local sign, hours, minutes = text:match("^([+-])(%d%d?):?(%d?%d?)$")
  if not sign or #minutes == 1 then
    return nil
  end
  local offset = tonumber(hours) * 60 + (tonumber(minutes) or 0)
  if offset > 14 * 60 or (tonumber(minutes) or 0) > 59 then
    return nil
  end
  return sign == "-" and -offset or offset
end

local function offset_of(message, name)
  local said = message:property("utc-offset")
  if said then
    local offset = parse_offset(said)
    if offset then
      return offset
    end
    bad_offsets:add()
  end
  return ZONES[name] or ZONES[name:match("^[^-]*")] or DEFAULT_OFFSET
end

-- Minutes from this minute of a local day to the end of the quiet hours; 0: they are not now.
local function minutes_left(minute)
  local length, into = (TO - FROM) % DAY, (minute - FROM) % DAY
  return into < length and length - into or 0
end

-- When the quiet hours are over in which `at` falls; nil: it falls in none.
local function end_of_quiet(at, offset)
  local left = minutes_left((at // MINUTE_MS + offset) % DAY)
  if left > 0 then
    return (at // MINUTE_MS + left) * MINUTE_MS
  end
end

local function route(message)
  local name = message.topic:match("^%$%a+/([^/]+)")
  if not name then
    return
  end
  local now = postroad.now()
  local till = end_of_quiet(math.max(message.deliver_at or now, now), offset_of(message, name))
  if not till then
    return
  end
  if message.priority == "high" then
    passed:add()
  elseif message.ttl and now + message.ttl * 1000 <= till then
    dropped:add()
    return postroad.drop("it expires in the quiet hours")
  else
    message.deliver_at = till
    delayed:add()
  end
end

return {
  description = "pushes wait while it is night where they go",
  priority = 800,
  route = { filters = { "$client/#", "$user/#" }, run = route },
}
