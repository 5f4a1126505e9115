-- Frames of 1,024 bytes, each a line of text filled up with spaces.
--
--    HELLO d1 [user password]     WELCOME                 a word ends at the next space, the last one takes the rest
--    PING                         PONG
--    PUB 7 rooms/1/temp 21.5      OK 7, or NO 7 151       7: a number of the device's own; 151: reason code of MQTT 5
--    ACK 12                       MSG 12 say hello        12: a number of the server's own
--    BYE
--
-- What to change: the size (`fixed`), the filler (`pad`: one byte), the words. What stands at the end of a payload and is the filler is lost.
-- Put the file into plugins.dir and name it: [[listener]] codec = "padded1024".

local function says(kind, pattern, message)
  message = message or {}
  message.kind, message.text = kind, { text = pattern }
  return message
end

return {
  description = "1,024 bytes of text, filled up with spaces",
  codec = {
    framing = { fixed = 1024 },
    fields = { { name = "text", bytes = "rest", pad = " " } },
    messages = {
      says("hello", "HELLO {name} {user} {password}", { client = "{name}", user = "{user}", password = "{password}" }),
      says("hello", "HELLO {name}", { client = "{name}" }),
      says("ping", "PING"),
      says("publish", "PUB {tag} {topic} {payload}", { tag = "tag", topic = "{topic}", payload = "payload" }),
      says("publish", "PUB {tag} {topic}", { tag = "tag", topic = "{topic}" }),
      says("ack", "ACK {tag}", { tag = "tag" }),
      says("bye", "BYE"),
      says("welcome", "WELCOME"),
      says("pong", "PONG"),
      says("push", "MSG {tag} {topic} {payload}", { tag = "tag", topic = "{topic}", payload = "payload" }),
      says("accepted", "OK {tag}", { tag = "tag" }),
      says("refused", "NO {tag} {reason}", { tag = "tag", reason = "reason" }),
    },
    keep_alive = 120, -- seconds; half as much again is granted
  },
}
