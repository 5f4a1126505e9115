local function number_of(answer)
  return answer.messages[1].properties.number
end

return {
  ["messages are numbered"] = function(t)
    t.equal(number_of(t.publish { topic = "orders/1" }), "1")
    t.equal(number_of(t.publish { topic = "orders/2" }), "2")
    t.equal(t.counter("numbered"), 2)
  end,

  ["a reload goes on counting"] = function(t)
    t.publish { topic = "orders/1" }
    t.reload()
    t.equal(number_of(t.publish { topic = "orders/2" }), "2")
  end,
}
