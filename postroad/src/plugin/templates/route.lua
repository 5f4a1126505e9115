-- NAME: sends what devices publish below "in/" to their tenant's topic, and leaves out what is empty.
--
-- To change: FILTERS says which messages it sees, PREFIX where they go.

local FILTERS = { "in/#" }
local PREFIX = "tenants/"

return {
  description = "routes by tenant",
  route = {
    filters = FILTERS,
    ---@param message postroad.Message
    run = function(message)
      if message.payload == "" then
        return postroad.drop("empty")
      end
      local tenant = message.user or "unknown"
      message.topic = PREFIX .. tenant .. "/" .. message.topic
    end,
  },
}
