-- NAME: frames of a device's own: lines of text. Name it at a listener: [[listener]] codec = "NAME".
--
-- To change: the line end, the longest line, and what each line says. Rust runs the declaration; no Lua is entered while frames flow.

local function says(kind, pattern, message)
  message = message or {}
  message.kind, message.text = kind, { text = pattern }
  return message
end

return {
  description = "lines of text",
  codec = {
    framing = { delimiter = "\n", longest = 1024 },
    fields = { { name = "text", bytes = "rest" } },
    messages = {
      says("hello", "HELLO {name}", { client = "{name}" }),
      says("ping", "PING"),
      says("publish", "PUB {tag} {topic} {payload}", { tag = "tag", topic = "{topic}", payload = "payload" }),
      says("ack", "ACK {tag}", { tag = "tag" }),
      says("bye", "BYE"),
      says("welcome", "WELCOME"),
      says("pong", "PONG"),
      says("push", "MSG {tag} {topic} {payload}", { tag = "tag", topic = "{topic}", payload = "payload" }),
      says("accepted", "OK {tag}", { tag = "tag" }),
      says("refused", "NO {tag} {reason}", { tag = "tag", reason = "reason" }),
    },
    keep_alive = 120,
  },
}
