-- For: dead letters that a program can mend. What is too large for a device goes to it as a short note that says where the whole message is. What was
--      pushed to a device that has a successor goes there. The second letter of the same content for the same device is dropped. All else is parked with
--      a note that a human can act on.
-- Change: MOVED, WHERE, and what is parked (see repair, at the end).
-- Try: postroad plugin test scripts/letter_repair.lua
--      postroad dlq list        shows what is left, with its notes
--
-- A letter is shown to plugins once, when it is made. What was requeued and dies again is a new letter: `requeues` says how often.

-- Old device to new one. A chain is followed: a device that was moved twice.
local MOVED = {
  ["truck-7"] = "truck-7b",
  ["truck-7b"] = "truck-7c",
}
-- Where a device gets the whole of a message; `%s` is its id.
local WHERE = "https://example.com/messages/%s"
-- For how long a content is remembered.
local SAME_SECONDS = 24 * 3600
local MOVES_MAX = 10

local shortened = postroad.counter("shortened")
local moved = postroad.counter("moved")
local doubled = postroad.counter("dropped_as_double")
local parked = postroad.counter("parked")

local function park(note)
  parked:add()
  return postroad.park(note)
end

-- By SHA-256: whoever can make two contents of one hash must not be able to make the second one vanish.
local function is_double(letter)
  if letter.requeues > 0 then
    return false -- it is a repair that died, not a second message
  end
  local content = ("%d:%s%d:%s%s"):format(#letter.client, letter.client, #letter.topic, letter.topic, letter.payload)
  local key = "seen:" .. postroad.sha256(content)
  if postroad.store.get(key) then
    return true
  end
  postroad.store.set(key, true, SAME_SECONDS)
  return false
end

-- Where it lives now; nil: it was not moved; false: the table goes in a circle.
local function successor(client)
  local to = MOVED[client]
  for _ = 1, MOVES_MAX do
    if not to or not MOVED[to] then
      return to
    end
    to = MOVED[to]
  end
  return false
end

-- Only what was pushed to it: what it had subscribed to, its successor subscribes to by itself.
local function move(letter, to)
  local rest = letter.topic:match("^%$client/[^/]+/(.+)$")
  if not rest then
    return park("its device is now " .. to .. ", and this was no push to it")
  end
  letter.topic = "$client/" .. to .. "/" .. rest
  moved:add()
  return postroad.requeue()
end

local function shorten(letter)
  if letter.requeues > 0 then
    return park("too large for its device, also after a repair")
  end
  local note = postroad.json.encode {
    id = letter.id,
    bytes = #letter.payload,
    sha256 = postroad.hex.encode(postroad.sha256(letter.payload)),
    url = WHERE:format(letter.id),
  }
  if #note >= #letter.payload then
    return park("too large for its device, with " .. #letter.payload .. " bytes: its maximum packet size is very small")
  end
  letter.payload = note
  shortened:add()
  return postroad.requeue()
end

local function described(letter)
  local note = ("%s after %d attempts, %d requeues"):format(letter.reason, letter.attempts, letter.requeues)
  if letter.reason_code ~= 0 then
    note = ("%s, reason code 0x%02x"):format(note, letter.reason_code)
  end
  return letter.error and note .. ": " .. letter.error or note
end

local function repair(letter)
  if is_double(letter) then
    doubled:add()
    return postroad.drop("the same content again")
  end
  local to = successor(letter.client)
  if to then
    return move(letter, to)
  elseif to == false then
    return park("MOVED goes in a circle at " .. letter.client)
  elseif letter.reason == "too_large" then
    return shorten(letter)
  elseif letter.reason == "overflow" then
    return nil -- it stays for the workers that empty such queues
  end
  return park(described(letter))
end

return {
  description = "mends dead letters, and parks what it can't mend",
  on_dead_letter = { filters = { "#", "$client/#", "$user/#", "$group/#" }, run = repair },
}
