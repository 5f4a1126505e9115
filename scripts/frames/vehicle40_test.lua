return {
  ["a stream says the same wherever it is cut"] = function(t)
    local stream = "\x00\x00\x00\x12\x67" .. "\x10\x00\x00\x00\x00" .. "\x2f\xff\xff\xff\xff" .. "\x30\x00\x00\x00\x01" .. "\x40\x00\x00\x00\x00" .. "\x50\x00\x00\x00\x00"
    t.every_split(stream, {
      { kind = "hello", client = "vehicle-4711" },
      { kind = "ping" },
      { kind = "publish", topic = "vehicles/vehicle-4711/position", payload = "68719476735" },
      { kind = "publish", topic = "vehicles/vehicle-4711/status", payload = "1" },
      { kind = "ack" },
      { kind = "bye" },
    }, "vehicle-4711")
  end,

  ["pushes and answers are written"] = function(t)
    t.equal(t.encode { kind = "welcome" }, "\x80\x00\x00\x00\x00")
    t.equal(t.encode { kind = "pong" }, "\x90\x00\x00\x00\x00")
    t.equal(t.encode { kind = "accepted" }, "\xa0\x00\x00\x00\x00")
    t.equal(t.encode { kind = "push", payload = "68719476735" }, "\xbf\xff\xff\xff\xff")
    t.equal(t.encode { kind = "refused", reason = 0x97 }, "\xc0\x00\x00\x00\x97")
  end,

  ["a payload that is no number of 36 bits can't be pushed"] = function(t)
    for _, payload in ipairs { "", "x", "-1", "68719476736", "1.5", "1 " } do
      t.raises(function()
        t.encode { kind = "push", payload = payload }
      end)
    end
  end,

  ["a command that is none breaks the stream"] = function(t)
    t.equal(t.decode("\xf0\x00\x00\x00\x00").broken, "command")
    t.equal(t.decode("\x60\x00\x00\x00\x00").broken, "command")
  end,

  ["less than five bytes are no frame yet"] = function(t)
    t.equal(t.decode("\x00\x00\x00\x12"), { needed = 5 })
    t.equal(t.decode(""), { needed = 5 })
  end,
}
