-- NAME: repairs dead letters: what was too large is cut and sent again, what was sent in vain too often waits for a human.
--
-- To change: BYTES_MAX is what devices take, REQUEUES_MAX how often a letter is sent again.

local BYTES_MAX = 1024
local REQUEUES_MAX = 3

return {
  description = "repairs dead letters",
  ---@param letter postroad.Letter
  on_dead_letter = function(letter)
    if letter.requeues >= REQUEUES_MAX then
      return postroad.park("sent again " .. letter.requeues .. " times")
    end
    if letter.reason == "too_large" then
      letter.payload = letter.payload:sub(1, BYTES_MAX)
      letter.ttl = 3600
      return postroad.requeue()
    end
  end,
}
