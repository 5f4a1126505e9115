return {
  ["a stream says the same wherever it is cut"] = function(t)
    t.every_split("HELLO d1\r\nPING\r\nPUB 7 rooms/1 21.5 C\r\nPUB 8 rooms/1\r\nACK 12\r\nBYE\r\n", {
      { kind = "hello", client = "d1" },
      { kind = "ping" },
      { kind = "publish", tag = 7, topic = "rooms/1", payload = "21.5 C" },
      { kind = "publish", tag = 8, topic = "rooms/1", payload = "" },
      { kind = "ack", tag = 12 },
      { kind = "bye" },
    })
  end,

  ["half of a line end is no line end"] = function(t)
    t.equal(t.decode("PING\r").frame, nil)
    t.equal(t.decode("PING\r").broken, nil)
    t.contains(t.decode("PUB 7 a x\ny\r\n").frame, { payload = "x\ny" })
    t.contains(t.decode("PUB 7 a x\ry\r\n").frame, { payload = "x\ry" })
  end,

  ["answers and pushes are lines"] = function(t)
    t.equal(t.encode { kind = "welcome" }, "WELCOME\r\n")
    t.equal(t.encode { kind = "pong" }, "PONG\r\n")
    t.equal(t.encode { kind = "push", tag = 12, topic = "say", payload = "hello you" }, "MSG 12 say hello you\r\n")
    t.equal(t.encode { kind = "accepted", tag = 7 }, "OK 7\r\n")
    t.equal(t.encode { kind = "refused", tag = 7, reason = 151 }, "NO 7 151\r\n")
  end,

  ["a payload with a line end can't be pushed, nor one that is too long"] = function(t)
    for _, payload in ipairs { "a\r\nb", ("x"):rep(4096) } do
      t.raises(function()
        t.encode { kind = "push", tag = 12, topic = "say", payload = payload }
      end)
    end
  end,

  ["what is no sentence of ours, or has no end, breaks the stream"] = function(t)
    for _, line in ipairs { "", "HOWDY", "ping", "PUB x rooms/1 y", "ACK twelve" } do
      t.ok(t.decode(line .. "\r\n").broken, line)
    end
    t.equal(t.decode("HOWDY\r\n").broken, "command")
    t.ok(t.decode(("x"):rep(5000)).broken)
  end,
}
