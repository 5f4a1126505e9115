"""paho-mqtt publishes what has a key, or is to be published later: python3 paho_wishes.py HOST PORT CLIENT TOPIC PAYLOAD QOS NAME=VALUE...
Prints the name of the reason code of each answer: of what it published, and of the same once more."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 20

host, port, client, topic, payload, qos = sys.argv[1:7]
properties = Properties(PacketTypes.PUBLISH)
properties.UserProperty = [tuple(wish.split("=", 1)) for wish in sys.argv[7:]]

connected, answered = queue.Queue(), queue.Queue()
raw = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
raw.on_connect = lambda _c, _u, _f, reason, _p: connected.put(reason)
raw.on_publish = lambda _c, _u, _m, reason, _p: answered.put(reason)
raw.connect(host, int(port), keepalive=60)
raw.loop_start()
assert not connected.get(timeout=PATIENCE).is_failure
for _ in range(2):
    raw.publish(topic, payload, int(qos), properties=properties)
    print(answered.get(timeout=PATIENCE))
raw.disconnect()
raw.loop_stop()
