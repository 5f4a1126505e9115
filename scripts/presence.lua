-- For: who is there. `presence/<client>` is a retained message that says since when a client is connected, or how its last connection ended.
-- Change: TOPIC, and whose presence is nobody's business (is_shown).
-- Try: postroad plugin test scripts/presence.lua
--      mosquitto_sub -v -t 'presence/#' &   mosquitto_sub -i phone-7 -t news
--
-- The hook is open: a failure of this script keeps nobody out.

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
    return tell(peer.client, { online = true, since = postroad.time.text(postroad.now()), user = peer.user })
  end
end

local function disconnected(peer)
  if is_shown(peer.client) then
    went:add()
    return tell(peer.client, { online = false, since = postroad.time.text(postroad.now()), cause = peer.cause })
  end
end

return {
  description = "presence/<client> says who is connected",
  on_connect = { on_error = "open", run = connected },
  on_disconnect = disconnected,
}
