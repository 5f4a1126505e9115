return {
  ["a stream says the same wherever it is cut"] = function(t)
    t.every_split("HELLO d1\nPING\nPUB 7 rooms/1 21.5 C\nACK 3\nBYE\n", {
      { kind = "hello", client = "d1" },
      { kind = "ping" },
      { kind = "publish", tag = 7, topic = "rooms/1", payload = "21.5 C" },
      { kind = "ack", tag = 3 },
      { kind = "bye" },
    })
  end,

  ["pushes and answers are written"] = function(t)
    t.equal(t.encode { kind = "push", tag = 3, topic = "rooms/1", payload = "on" }, "MSG 3 rooms/1 on\n")
    t.equal(t.encode { kind = "accepted", tag = 7 }, "OK 7\n")
  end,

  ["what is no line of ours is broken"] = function(t)
    t.equal(t.decode("HOWDY\n").broken, "command")
    t.equal(t.decode("HEL").frame, nil)
  end,
}
