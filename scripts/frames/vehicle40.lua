-- A frame of 5 bytes for vehicles on thin networks (2G, tunnels, car parks): the high 4 bits are the command, the low 36 the content.
--
--    0 hello  content: number of the vehicle      8 welcome
--    1 ping                                       9 pong
--    2 position, 3 status: published             10 accepted
--    4 ack                                       11 push    content: the payload, a decimal number
--    5 bye                                       12 refused content: reason code
--
-- What to change: the names of clients and topics below; more commands, each a message. What a number means (degrees, flags) is the
-- business of those who subscribe: a payload is the number in decimal. To have the number in parts, cut `content` into several fields.
-- There is no room for a tag, so pushes go one at a time, each after the ack of the one before.
-- Put the file into plugins.dir and name it: [[listener]] codec = "vehicle40".

local function on(command, message)
  message.when = { command = command }
  return message
end

return {
  description = "5 bytes: 4 bits of command, 36 of content",
  codec = {
    framing = { fixed = 5 },
    fields = {
      { name = "command", bits = 4 },
      { name = "content", bits = 36 },
    },
    messages = {
      on(0, { kind = "hello", client = "vehicle-{content}" }),
      on(1, { kind = "ping" }),
      on(2, { kind = "publish", topic = "vehicles/{client}/position", payload = "content" }),
      on(3, { kind = "publish", topic = "vehicles/{client}/status", payload = "content" }),
      on(4, { kind = "ack" }),
      on(5, { kind = "bye" }),
      on(8, { kind = "welcome" }),
      on(9, { kind = "pong" }),
      on(10, { kind = "accepted" }),
      on(11, { kind = "push", payload = "content" }),
      on(12, { kind = "refused", reason = "content" }),
    },
    keep_alive = 120, -- seconds; half as much again is granted
  },
}
