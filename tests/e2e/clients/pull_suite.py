"""Clients that pull, by paho-mqtt: python3 pull_suite.py HOST PORT. The server's option is push. Prints "all passed" at the end."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
PATIENCE = 20


class Client:
    """A client that acknowledges what it is told to."""

    def __init__(self, name, delivery=None, protocol=mqtt.MQTTv5, expiry=600):
        self.messages, self.connected, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        self.published = queue.Queue()
        self.raw = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=protocol,
            manual_ack=True,
            reconnect_on_failure=False,
            **({} if protocol == mqtt.MQTTv5 else {"clean_session": False}),
        )
        self.raw.on_message = lambda _c, _u, message: self.messages.put(message)
        self.raw.on_connect = lambda _c, _u, _f, reason, _p: self.connected.put(reason)
        self.raw.on_subscribe = lambda _c, _u, _m, reasons, _p: self.subscribed.put(reasons)
        self.raw.on_publish = lambda _c, _u, _m, reason, _p: self.published.put(reason)
        arguments = {}
        if protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            if delivery:
                properties.UserProperty = ("postroad-delivery", delivery)
            arguments = {"clean_start": False, "properties": properties}
        self.raw.connect(HOST, PORT, keepalive=60, **arguments)
        self.raw.loop_start()
        self.reason = self.connected.get(timeout=PATIENCE)

    def subscribe(self, topic, qos):
        self.raw.subscribe(topic, qos)
        return self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic, payload="", qos=1):
        self.raw.publish(topic, payload, qos)
        return self.published.get(timeout=PATIENCE)

    def acknowledge(self, message):
        self.raw.ack(message.mid, message.qos)

    def take(self, count):
        return [self.messages.get(timeout=PATIENCE) for _ in range(count)]

    def vanish(self):
        """Without DISCONNECT."""
        self.raw.loop_stop()
        self.raw.socket().close()

    def close(self):
        self.raw.disconnect()
        self.raw.loop_stop()


def until(client, publisher, mark):
    """What has come up to a message of QoS 0, which does not wait."""
    publisher.publish("t/mark", mark, qos=0)
    taken = []
    while True:
        message = client.messages.get(timeout=PATIENCE)
        if message.topic == "t/mark":
            assert message.payload.decode() == mark, message.payload
            return taken
        taken.append(message)


def payloads(messages):
    return [message.payload.decode() for message in messages]


def a_client_of_mqtt_5_pulls():
    device, back_end = Client("device-5", "pull"), Client("back-end")
    device.subscribe("t/#", 1)
    for number in range(1, 8):
        back_end.publish("t/a", str(number))
    assert until(device, back_end, "before") == [], "nothing was asked for"
    device.publish("$pull/2", qos=0)
    taken = device.take(2)
    assert payloads(taken) == ["1", "2"], payloads(taken)
    assert until(device, back_end, "two") == [], "two were asked for"
    assert not device.publish("$pull/1", "whatever", qos=1).is_failure
    assert not device.publish("$pull/1", qos=2).is_failure
    taken += device.take(2)
    assert until(device, back_end, "four") == []
    device.acknowledge(taken[0])
    device.vanish()

    # What was in flight comes again without being asked for, the rest does not.
    device = Client("device-5", "pull")
    again = until(device, back_end, "again")
    assert payloads(again) == ["2", "3", "4"] and all(message.dup for message in again), payloads(again)
    for message in again:
        device.acknowledge(message)
    device.publish("$pull/65535")
    rest = device.take(3)
    assert payloads(rest) == ["5", "6", "7"], payloads(rest)
    for message in rest:
        device.acknowledge(message)
    back_end.publish("t/a", "live")
    assert payloads(device.take(1)) == ["live"], "allowance holds for what comes later"
    device.publish("$pull/0")
    back_end.publish("t/a", "waits")
    assert until(device, back_end, "none") == []
    device.close()
    back_end.close()


def what_is_no_pull_is_refused():
    device, spy = Client("device-6", "pull"), Client("spy", "push")
    spy.subscribe("$pull/#", 1)
    for topic in ["$pull/x", "$pull/65536", "$pull", "$pull/1/2"]:
        reason = device.publish(topic)
        assert reason.value == 0x90, (topic, reason)
    spy.subscribe("t/#", 1)
    device.publish("$pull/1")
    assert until(spy, device, "nobody else gets it") == []
    device.close()
    spy.close()
    assert Client("device-7", "sometimes").reason.value == 0x83


def a_client_of_mqtt_3_pulls_from_its_first_pull_on():
    device, back_end = Client("device-3", protocol=mqtt.MQTTv311), Client("back-end")
    device.subscribe("t/#", 1)
    back_end.publish("t/a", "pushed")
    pushed = device.take(1)
    assert payloads(pushed) == ["pushed"]
    device.acknowledge(pushed[0])
    device.publish("$pull/0")
    back_end.publish("t/a", "pulled")
    assert until(device, back_end, "three") == []
    device.publish("$pull/1")
    assert payloads(device.take(1)) == ["pulled"]
    device.close()
    back_end.close()


for case in [a_client_of_mqtt_5_pulls, what_is_no_pull_is_refused, a_client_of_mqtt_3_pulls_from_its_first_pull_on]:
    print(case.__name__, flush=True)
    case()
print("all passed")
