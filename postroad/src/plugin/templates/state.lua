-- NAME: gives each message a number, and goes on counting over reloads.
--
-- To change: FILTERS says which messages are counted. Numbers are those of one shard.

local FILTERS = { "orders/#" }

local count = 0

return {
  description = "numbers messages",
  route = {
    filters = FILTERS,
    ---@param message postroad.Message
    run = function(message)
      count = count + 1
      message:set_property("number", tostring(count))
      postroad.counter("numbered"):add(1)
    end,
  },
  on_save = function()
    return { count = count }
  end,
  on_load = function(previous)
    count = previous and previous.count or 0
  end,
}
