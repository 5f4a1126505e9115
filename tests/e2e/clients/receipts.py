"""paho-mqtt asks for receipts: python3 receipts.py HOST PORT. Publishes one message to d/1 and prints each receipt of it in a line.
After the first two it goes away, says so, and comes back once it is told to.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
PATIENCE = 30


def connected(messages, ready):
    """A client with a session that stays; `ready` gets something once it is connected, and once it has subscribed."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=mqtt.MQTTv5)
    client.on_message = lambda _c, _u, message: messages.put(message)
    client.on_connect = lambda _c, _u, flags, _r, _p: ready.put(flags.session_present)
    client.on_subscribe = lambda _c, _u, _m, reasons, _p: ready.put(reasons)
    client.on_disconnect = lambda _c, _u, _f, _r, _p: ready.put("gone")
    lasting = Properties(PacketTypes.CONNECT)
    lasting.SessionExpiryInterval = 3600
    client.connect(HOST, PORT, clean_start=False, properties=lasting)
    client.loop_start()
    return client, ready.get(timeout=PATIENCE)


def tell(message, published):
    receipt, (root, named, level, recipient) = json.loads(message.payload), message.topic.split("/")
    told = dict(message.properties.UserProperty)
    assert named == published_as, message.topic
    assert root == "$receipt" and named == receipt["message"] == told["postroad-message"], message.topic
    assert level == receipt["level"] and recipient == (receipt["client"] or "-"), message.topic
    assert receipt["topic"] == published and message.qos == 1 and not message.retain
    assert message.properties.ContentType == "application/json"
    data = message.properties.CorrelationData.decode()
    print(receipt["level"], receipt["client"], f"attempts={receipt['attempts']}", data, flush=True)


messages, ready, answers = queue.Queue(), queue.Queue(), queue.Queue()
client, _ = connected(messages, ready)
client.on_publish = lambda _c, _u, _m, _r, properties: answers.put(properties)
client.subscribe("$receipt/#", qos=1)
assert ready.get(timeout=PATIENCE)[0].value == 1
asked = Properties(PacketTypes.PUBLISH)
asked.UserProperty = [("postroad-receipt", "acknowledged")]
asked.CorrelationData = b"order 7"
client.publish("d/1", b"hello", qos=1, properties=asked).wait_for_publish(PATIENCE)
# The answer says under which id it was taken in, and only to who wants receipts.
[(name, published_as)] = answers.get(timeout=PATIENCE).UserProperty
assert name == "postroad-id", name
client.publish("e/2", b"hello", qos=1).wait_for_publish(PATIENCE)
assert not hasattr(answers.get(timeout=PATIENCE), "UserProperty")
print("id", published_as, flush=True)
for _ in range(2):
    tell(messages.get(timeout=PATIENCE), "d/1")
client.disconnect()
assert ready.get(timeout=PATIENCE) == "gone"
client.loop_stop()
print("away", flush=True)
sys.stdin.readline()
client, session_present = connected(messages, ready)
assert session_present
tell(messages.get(timeout=PATIENCE), "d/1")
client.disconnect()
