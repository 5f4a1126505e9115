-- For: who is there. `presence/<client>` is a retained message that says since when a client is connected, or how its last connection ended.
-- Change: TOPIC, and whose presence is nobody's business (is_shown).
-- Try: postroad plugin test scripts/presence.lua
--      mosquitto_sub -v -t 'presence/#' &   mosquitto_sub -i phone-7 -t news
--
-- The hook is open: a failure of this script keeps nobody out. It is the last one in the chain, so who is denied by another plugin was never here.
-- When a second connection of a client takes over, the server tells of the new one before it tells of the end of the old one. So connections are counted
-- in `postroad.store`: give it an entry for each client that is connected to one shard (`plugins.store_entries_max`). A client that was there before this
-- script is not counted: when it is taken over it is shown as gone until it connects anew.

local TOPIC = "presence/"

local came = postroad.counter("came")
local went = postroad.counter("went")

-- What names itself after a secret, or so that its name is no level of a topic, is not shown.
local function is_shown(client)
  return client ~= "" and not client:find("[/+#%z]") and client:sub(1, 9) ~= "internal-"
end

local function tell(client, state)
  return postroad.publish {
    { topic = TOPIC .. client, payload = postroad.json.encode(state), qos = 1, retain = true, content_type = "application/json" },
  }
end

local function connected(peer)
  if is_shown(peer.client) then
    came:add()
    postroad.store.incr("connections:" .. peer.client)
    return tell(peer.client, { online = true, since = postroad.time.text(postroad.now()), user = peer.user })
  end
end

-- Whether another connection of the client is there, which has taken over.
local function is_still_here(client)
  local key = "connections:" .. client
  local left = postroad.store.incr(key, -1)
  if left and left > 0 then
    return true
  end
  postroad.store.delete(key)
  return false
end

local function disconnected(peer)
  if is_shown(peer.client) and not is_still_here(peer.client) then
    went:add()
    return tell(peer.client, { online = false, since = postroad.time.text(postroad.now()), cause = peer.cause })
  end
end

return {
  description = "presence/<client> says who is connected",
  priority = 1000,
  on_connect = { on_error = "open", run = connected },
  on_disconnect = disconnected,
}
