local function pad(text)
  return text .. (" "):rep(1024 - #text)
end

return {
  ["a stream says the same wherever it is cut"] = function(t)
    t.every_split(pad("HELLO d1 ann secret") .. pad("PUB 7 rooms/1/temp it is 21.5") .. pad("BYE"), {
      { kind = "hello", client = "d1", user = "ann", password = "secret" },
      { kind = "publish", tag = 7, topic = "rooms/1/temp", payload = "it is 21.5" },
      { kind = "bye" },
    })
  end,

  ["each frame of a device is known"] = function(t)
    t.contains(t.decode(pad("HELLO d1")).frame, { kind = "hello", client = "d1" })
    t.equal(t.decode(pad("PING")).frame.kind, "ping")
    t.contains(t.decode(pad("PUB 7 rooms/1")).frame, { kind = "publish", topic = "rooms/1", payload = "" })
    t.contains(t.decode(pad("ACK 12")).frame, { kind = "ack", tag = 12 })
    t.equal(t.decode(pad("PING")).size, 1024)
  end,

  ["answers and pushes are filled up"] = function(t)
    t.equal(t.encode { kind = "welcome" }, pad("WELCOME"))
    t.equal(t.encode { kind = "pong" }, pad("PONG"))
    t.equal(t.encode { kind = "push", tag = 12, topic = "say", payload = "hello you" }, pad("MSG 12 say hello you"))
    t.equal(t.encode { kind = "accepted", tag = 7 }, pad("OK 7"))
    t.equal(t.encode { kind = "refused", tag = 7, reason = 151 }, pad("NO 7 151"))
  end,

  ["what does not fit can't be pushed"] = function(t)
    local room = 1024 - #"MSG 12 say "
    t.equal(#t.encode { kind = "push", tag = 12, topic = "say", payload = ("x"):rep(room) }, 1024)
    t.raises(function()
      t.encode { kind = "push", tag = 12, topic = "say", payload = ("x"):rep(room + 1) }
    end)
  end,

  ["what is no sentence of ours breaks the stream"] = function(t)
    for _, text in ipairs { "", "HOWDY", "hello d1", "PUB x rooms/1 y", "ACK", "ACK -1", "\255" } do
      t.ok(t.decode(pad(text)).broken, text)
    end
    t.equal(t.decode(pad("PING"):sub(1, 1023)), { needed = 1024 })
  end,
}
