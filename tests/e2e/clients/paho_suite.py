"""paho-mqtt against a broker: python3 paho_suite.py HOST PORT. Prints each case, and "all passed" at the end."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT = sys.argv[1], int(sys.argv[2])
PATIENCE = 20


class Client:
    """A connected client whose callbacks fill queues."""

    def __init__(self, name, protocol=mqtt.MQTTv5, clean=True, expiry=0, will=None, login=None):
        self.messages = queue.Queue()
        self.connected = queue.Queue()
        self.gone = queue.Queue()
        self.subscribed = queue.Queue()
        options = {"reconnect_on_failure": False}
        if protocol != mqtt.MQTTv5:
            options["clean_session"] = clean
        self.raw = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, **options)
        self.raw.on_message = lambda _c, _u, message: self.messages.put(message)
        self.raw.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put((flags, reason))
        self.raw.on_disconnect = lambda _c, _u, _f, reason, _p: self.gone.put(reason)
        self.raw.on_subscribe = lambda _c, _u, _m, reasons, _p: self.subscribed.put(reasons)
        if will:
            self.raw.will_set(*will)
        if login:
            self.raw.username_pw_set(*login)
        arguments = {}
        if protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            if expiry:
                properties.SessionExpiryInterval = expiry
            arguments = {"clean_start": clean, "properties": properties}
        self.raw.connect(HOST, PORT, keepalive=60, **arguments)
        self.raw.loop_start()
        flags, reason = self.connected.get(timeout=PATIENCE)
        assert not reason.is_failure, reason
        self.session_present = flags.session_present

    def subscribe(self, topic, qos=0, options=None, properties=None):
        if options is not None:
            self.raw.subscribe(topic, options=options, properties=properties)
        else:
            self.raw.subscribe(topic, qos, properties=properties)
        return self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        self.raw.publish(topic, payload, qos, retain, properties=properties).wait_for_publish(PATIENCE)

    def take(self, count):
        return [self.messages.get(timeout=PATIENCE) for _ in range(count)]

    def close(self):
        self.raw.disconnect()
        self.raw.loop_stop()


def payloads(messages):
    return [message.payload.decode() for message in messages]


def every_qos(protocol):
    receiver = Client("receiver", protocol)
    sender = Client("sender", protocol)
    receiver.subscribe("qos/+", 2)
    for qos in (0, 1, 2):
        for number in range(20):
            sender.publish(f"qos/{qos}", f"{qos}-{number}", qos)
        received = receiver.take(20)
        assert payloads(received) == [f"{qos}-{number}" for number in range(20)], payloads(received)
        assert all(message.qos == qos for message in received)
    receiver.close()
    sender.close()


def binary_and_large():
    client = Client("large")
    client.subscribe("large/#", 1)
    for body in (b"", bytes(range(256)), b"x" * 300_000):
        client.publish("large/a", body)
        assert client.take(1)[0].payload == body
    client.close()


def subscription_options():
    sender = Client("options-sender")
    sender.publish("options/kept", "kept", retain=True)
    client = Client("options")
    client.subscribe("options/#", options=SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))
    (kept,) = client.take(1)
    assert kept.retain and kept.payload == b"kept"
    client.publish("options/own", "own")
    sender.publish("options/other", "other", retain=True)
    (other,) = client.take(1)
    assert other.payload == b"other" and other.retain, (other.payload, other.retain)
    sender.publish("options/kept", "", retain=True)
    sender.publish("options/other", "", retain=True)
    client.close()
    sender.close()


def subscription_identifiers():
    client = Client("identifiers")
    for identifier, topic in ((7, "id/+"), (300, "id/a/#")):
        properties = Properties(PacketTypes.SUBSCRIBE)
        properties.SubscriptionIdentifier = identifier
        client.subscribe(topic, 1, properties=properties)
    client.publish("id/a", "both")
    seen = set(client.take(1)[0].properties.SubscriptionIdentifier)
    if len(seen) == 1:  # one copy for each subscription is allowed as well
        seen |= set(client.take(1)[0].properties.SubscriptionIdentifier)
    assert seen == {7, 300}, seen
    client.close()


def request_and_response():
    server, asker = Client("server"), Client("asker")
    server.subscribe("ask/#", 1)
    asker.subscribe("answers/asker", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers/asker"
    properties.CorrelationData = b"\x00\x01"
    properties.UserProperty = [("a", "1"), ("a", "2")]
    asker.publish("ask/time", "now?", properties=properties)
    (question,) = server.take(1)
    assert question.properties.UserProperty == [("a", "1"), ("a", "2")]
    answer = Properties(PacketTypes.PUBLISH)
    answer.CorrelationData = question.properties.CorrelationData
    server.publish(question.properties.ResponseTopic, "noon", properties=answer)
    (noon,) = asker.take(1)
    assert noon.payload == b"noon" and noon.properties.CorrelationData == b"\x00\x01"
    server.close()
    asker.close()


def shared_subscription():
    members = [Client(f"member-{number}") for number in range(3)]
    inbox = queue.Queue()
    for member in members:
        member.messages = inbox
        member.subscribe("$share/team/work/#", 1)
    sender = Client("foreman")
    for number in range(60):
        sender.publish("work/item", str(number))
    received = []
    for _ in range(60):
        received.append(int(inbox.get(timeout=PATIENCE).payload))
    assert sorted(received) == list(range(60)), sorted(received)
    for member in members:
        member.close()
    sender.close()


def persistent_session(protocol):
    first = Client("sleeper", protocol, clean=False, expiry=3600)
    first.subscribe("sleep/#", 2)
    first.close()
    sender = Client("waker", protocol)
    for number in range(20):
        sender.publish("sleep/a", str(number), 1 + number % 2)
    again = Client("sleeper", protocol, clean=False, expiry=3600)
    assert again.session_present
    received = again.take(20)
    # The client hands QoS 2 on at PUBREL, so that order can be seen within one level only.
    for qos in (1, 2):
        of_level = [message.payload.decode() for message in received if message.qos == qos]
        assert of_level == [str(number) for number in range(qos - 1, 20, 2)], of_level
    again.close()
    last = Client("sleeper", protocol, clean=True)
    assert not last.session_present
    last.close()
    sender.close()


def take_over():
    first = Client("twin", expiry=60)
    second = Client("twin", clean=False, expiry=60)
    reason = first.gone.get(timeout=PATIENCE)
    # 0x8E is on the wire (tests/wire.rs); this client reads the reason of longer DISCONNECTs only.
    assert reason.value in (0x00, 0x8E), reason
    assert second.session_present
    first.raw.loop_stop()
    second.close()


def will_on_silence():
    watcher = Client("watcher")
    watcher.subscribe("will/#", 1)
    mortal = Client("mortal", will=("will/mortal", "died", 1, False))
    mortal.raw.loop_stop()
    mortal.raw.socket().close()
    assert payloads(watcher.take(1)) == ["died"]
    watcher.close()


CASES = [
    ("every QoS, 3.1.1", lambda: every_qos(mqtt.MQTTv311)),
    ("every QoS, 5", lambda: every_qos(mqtt.MQTTv5)),
    ("binary and large payloads", binary_and_large),
    ("subscription options", subscription_options),
    ("subscription identifiers", subscription_identifiers),
    ("request and response", request_and_response),
    ("shared subscription", shared_subscription),
    ("persistent session, 3.1.1", lambda: persistent_session(mqtt.MQTTv311)),
    ("persistent session, 5", lambda: persistent_session(mqtt.MQTTv5)),
    ("take-over", take_over),
    ("will", will_on_silence),
]

for name, case in CASES:
    print(name, flush=True)
    case()
print("all passed")
