-- The login as the makers of such trackers print it in their papers: so the checksum is held against theirs, not ours.
local LOGIN = "\x78\x78\x0d\x01\x01\x23\x45\x67\x89\x01\x23\x45\x00\x01\x8c\xdd\x0d\x0a"

return {
  ["the login of the papers is read"] = function(t)
    local read = t.decode(LOGIN)
    t.equal(read.size, #LOGIN)
    t.contains(read.frame, { kind = "hello", client = "tracker-0123456789012345", tag = 1 })
  end,

  ["its answer is that of the papers"] = function(t)
    t.equal(t.encode { kind = "welcome", command = 1, tag = 1 }, "\x78\x78\x05\x01\x00\x01\xd9\xdc\x0d\x0a")
  end,

  ["a stream says the same wherever it is cut"] = function(t)
    t.every_split(LOGIN .. LOGIN, { { kind = "hello" }, { kind = "hello" } })
  end,

  ["what is written is read: a push has a serial number and a checksum"] = function(t)
    local push = t.encode { kind = "push", tag = 0x0102, payload = "reset" }
    t.equal(push:sub(1, 4), "\x78\x78\x0a\x80")
    t.equal(push:sub(5, 11), "reset\x01\x02")
    t.equal(push:sub(-2), "\r\n")
    t.equal(#push, 15)
  end,

  ["a push that does not fit in one byte of length can't be said"] = function(t)
    t.equal(#t.encode { kind = "push", tag = 1, payload = ("x"):rep(250) }, 260)
    t.raises(function()
      t.encode { kind = "push", tag = 1, payload = ("x"):rep(251) }
    end)
  end,

  ["each byte that is wrong is found"] = function(t)
    for place = 1, #LOGIN do
      local byte = LOGIN:byte(place) ~ 0x10
      local read = t.decode(LOGIN:sub(1, place - 1) .. string.char(byte) .. LOGIN:sub(place + 1) .. ("\0"):rep(40))
      t.ok(read.broken, place)
    end
  end,
}
