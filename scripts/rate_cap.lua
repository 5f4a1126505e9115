-- For: nobody is flooded. So many pushes an hour go to one user (`$user/<user>/…`); what is more waits for a later hour that has room, and is dropped
--      when there is none soon. And so many messages a minute are taken from one publishing user; what is more is refused (a client of
--      MQTT 3 is cut off for it, and publishes it again when it comes back).
--      `priority = "high"` goes to a user without being counted.
-- Change: TO_USER, FROM_USER. `count = math.huge` switches one of them off.
-- Try: postroad plugin test scripts/rate_cap.lua
--      for i in $(seq 25); do postroad publish '$user/ann/news' -m $i; done; postroad scheduled list
--
-- Counts are in `postroad.store`: each shard has its own, they outlive a reload, and not a restart. A publisher is on one shard, so FROM_USER is exact
-- for a user with one client; pushes to a user that come from publishers of several shards are counted by each of these. Divide `count` by the number of
-- shards if that matters more than a burst from one publisher.

local TO_USER = { count = 20, seconds = 3600, windows_ahead = 3 }
local FROM_USER = { count = 600, seconds = 60 }

local deferred = postroad.counter("deferred")
local dropped = postroad.counter("dropped")
local refused = postroad.counter("refused")
local uncounted = postroad.counter("uncounted")

-- Takes a place in a window; false: it is full. Without room in the store nobody is held back: that is counted, and an operator gives it more.
local function take(kind, name, window, cap)
  local key = ("%s:%d:%s"):format(kind, window, name)
  local used = postroad.store.get(key) or 0
  if used >= cap.count then
    return false
  end
  -- The entry lives until its window is over, also one of a later window.
  local ends_at = (window + 1) * cap.seconds * 1000
  if not postroad.store.incr(key, 1, (ends_at - postroad.now()) / 1000) then
    uncounted:add()
  end
  return true
end

local function window_of(ms, cap)
  return ms // 1000 // cap.seconds
end

local function may_publish(user)
  return take("from", user, window_of(postroad.now(), FROM_USER), FROM_USER)
end

-- Begins with the window in which it is to be delivered, and books a place in the first one that has one.
local function push(message, user)
  local now = postroad.now()
  local first = window_of(math.max(message.deliver_at or now, now), TO_USER)
  for window = first, first + TO_USER.windows_ahead do
    if take("to", user, window, TO_USER) then
      if window > first then
        message.deliver_at = window * TO_USER.seconds * 1000
        deferred:add()
      end
      return nil
    end
  end
  dropped:add()
  return postroad.drop("too many pushes to " .. user)
end

local function route(message)
  if message.user and not may_publish(message.user) then
    refused:add()
    return postroad.refuse("quota_exceeded", message.user .. " publishes too much")
  end
  local user = message.topic:match("^%$user/([^/]+)/")
  if user and message.priority ~= "high" then
    return push(message, user)
  end
end

return {
  description = "so many pushes to a user, so many messages from one",
  priority = 850,
  route = { filters = { "#", "$user/#" }, run = route },
}
