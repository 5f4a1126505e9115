-- For: many tenants on one server. What a client publishes to `in/<tenant>/…` goes to the tenant's own tree, and nowhere else.
--      A client must belong to the group `tenant-<tenant>`; without that rule one tenant could write into the tree of another.
--      What names a tenant that nobody knows is parked: it is a dead letter, and an operator decides.
-- Change: TENANTS, and how the group of a tenant is called (group_of).
-- Try: postroad plugin test scripts/tenant_routing.lua
--      postroad publish in/acme/orders/7 -m hello     goes to     tenants/acme/orders/7
--
-- A refusal is "not_authorized": the one reason for which a client of MQTT 3 is not cut off, to come back and publish the same again.
-- The hook is closed: if it fails, the publisher hears that. Open it would leave the message below `in/`, where nobody looks.

-- tree: where its messages go. suspended: its publishers are refused.
local TENANTS = {
  acme = { tree = "tenants/acme" },
  globex = { tree = "tenants/globex" },
  initech = { tree = "archive/initech", suspended = true },
}

local function group_of(tenant)
  return "tenant-" .. tenant
end

local routed = postroad.counter("routed")
local parked = postroad.counter("parked")
local refused = postroad.counter("refused")

local function belongs_to(message, group)
  for _, name in ipairs(message.groups) do
    if name == group then
      return true
    end
  end
  return false
end

local function refuse(reason, text)
  refused:add()
  return postroad.refuse(reason, text)
end

local function park(note)
  parked:add()
  return postroad.park(note)
end

local function route(message)
  local name, rest = message.topic:match("^in/([^/]+)/(.+)$")
  if not name then
    return park("expected in/<tenant>/<topic>")
  end
  local tenant = TENANTS[name]
  if not tenant then
    return park("no tenant is called " .. name)
  end
  if not message.is_application and not belongs_to(message, group_of(name)) then
    return refuse("not_authorized", "the client is not in " .. group_of(name))
  end
  if tenant.suspended then
    return refuse("not_authorized", name .. " is suspended")
  end
  message.topic = tenant.tree .. "/" .. rest
  routed:add()
end

return {
  description = "in/<tenant>/… goes to the tenant's tree",
  priority = 100,
  route = { filters = { "in/#" }, on_error = "closed", run = route },
}
