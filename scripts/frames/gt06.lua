-- A frame like that of GT06 trackers.
--
--    78 78 | length | protocol | content … | serial (2) | CRC-16/X-25 (2) | 0d 0a
--                     └──────── length counts ─────────────────────────┘
--            └──────────────── CRC covers ──────────────┘
--    01 login, content: terminal id, 8 bytes BCD; 13 heartbeat; 12 location: each is answered with its protocol number and serial
--    80 push (content: a command to the tracker), 15 its acknowledgement, with the serial of the push
--
-- What to change: the protocol numbers of your tracker (alarms are often 16, commands carry a server flag and a language in front and
-- behind), the topics. The location is published as it came; to have its parts, put fields in the place of `content` in a codec of its own.
-- Trackers have no password. `user = "tracker"` and `password = "…"` in the hello make all of them one user of auth.file, which registers
-- them for pushes; without, `registrations.unknown_client = "queue"` or the API does.
-- Put the file into plugins.dir and name it: [[listener]] codec = "gt06".

local function on(protocol, message)
  message.when, message.tag = { protocol = protocol }, "serial"
  return message
end

return {
  description = "frames like those of GT06 trackers",
  codec = {
    framing = { length = "length", plus = 5, longest = 260 },
    fields = {
      { name = "start", constant = "\x78\x78" },
      { name = "length", bits = 8 },
      { name = "protocol", bits = 8 },
      { name = "content", bytes = "rest" },
      { name = "serial", bits = 16 },
      { name = "crc", checksum = "crc16_x25", from = "length", to = "serial" },
      { name = "stop", constant = "\r\n" },
    },
    messages = {
      on(0x01, { kind = "hello", client = "tracker-{content:bcd}" }),
      on(0x13, { kind = "ping" }),
      on(0x12, { kind = "publish", topic = "trackers/{client}/location", payload = "content" }),
      on(0x15, { kind = "ack" }),
      on("asked", { kind = "welcome" }),
      on("asked", { kind = "pong" }),
      on("asked", { kind = "accepted" }),
      on(0x80, { kind = "push", payload = "content" }),
    },
    keep_alive = 300, -- seconds; half as much again is granted
  },
}
