-- Lines of text that end with CR and LF, as FTP and SMTP have them: to be spoken by hand, too.
--
--    HELLO d1 [user password]     WELCOME                 a word ends at the next space, the last one takes the rest
--    PING                         PONG
--    PUB 7 rooms/1/temp 21.5      OK 7, or NO 7 151       7: a number of the device's own; 151: reason code of MQTT 5
--    ACK 12                       MSG 12 say hello        12: a number of the server's own
--    BYE
--
-- What to change: the line end (`delimiter`, 1 to 4 bytes), the longest line, the words. A push whose payload holds the line end can't be
-- said in such lines, and ends as refused.
-- Put the file into plugins.dir and name it: [[listener]] codec = "crlf_lines".

local function says(kind, pattern, message)
  message = message or {}
  message.kind, message.text = kind, { text = pattern }
  return message
end

return {
  description = "lines of text",
  codec = {
    framing = { delimiter = "\r\n", longest = 4096 },
    fields = { { name = "text", bytes = "rest" } },
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
