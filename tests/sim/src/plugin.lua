-- The plugin of the simulator. The words in capitals are put in by plugins.rs, with a seed for each shard and generation.
local state = SEED
local count = 0

-- Whether so many in a thousand happen now.
local function chance(of_thousand)
  state = (state * 1103515245 + 12345) & 0x7fffffff
  return (state >> 8) % 1000 < of_thousand
end

-- Each kind of failure that a script can have.
local function fail()
  local kind = (state >> 4) % 5
  if kind == 0 then error("a seeded failure") end
  if kind == 1 then while true do end end
  if kind == 2 then return ("x"):rep(1 << 30) end
  if kind == 3 then return postroad.nothing.there end
  return { "an answer that means nothing" }
end

local function echo_of(name)
  local publisher, topic, qos, number = name:match("^(%d+)/(%d+)/(%d+)/(%d+)$")
  return ("%d/ECHO_NUMBER/1/%s"):format(ECHO + publisher * 100 + topic * 3 + qos, number)
end

return {
  route = {
    filters = { "raw/#" },
    on_error = "closed",
    run = function(message)
      if chance(FAILURES) then return fail() end
      local name = message.payload
      -- A key of its own: no echo takes the place of another, nor of the same one when its message is repeated, in whatever generation or after a crash.
      count = count + 1
      message:also { topic = "ECHO_TOPIC", payload = echo_of(name) .. "#by GENERATION", qos = 1, priority = "normal", collapse_key = ("%s %s GENERATION %d %d"):format(name, message.id, count, postroad.now()) }
      message.topic = message.topic:sub(5)
      message.payload = name .. "#by GENERATION"
    end,
  },
  -- What another generation made is not its own: nobody gets it, and the oracle misses it.
  on_deliver = {
    filters = { "t/#", "$client/#" },
    run = function(message, clients)
      local made = message.payload:match("#by (%d+)$")
      if not made or tonumber(made) == GENERATION then return end
      local nobody = {}
      for index = 1, #clients do nobody[index] = false end
      return nobody
    end,
  },
  on_dead_letter = {
    filters = { "#", "$client/#" },
    run = function()
      if chance(500) then return postroad.requeue() end
    end,
  },
  on_save = function() return { state = state } end,
  on_load = function(previous)
    if previous then state = previous.state end
  end,
}
