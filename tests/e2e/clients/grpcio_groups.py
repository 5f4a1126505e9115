"""grpcio takes from consumer groups: python3 grpcio_groups.py HOST PORT. Prints each case, and "all passed" at the end.

As in grpcio_suite.py it has no file of ours: what can be called is what reflection describes.
"""

import queue
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import proto_reflection_descriptor_database as v1alpha
from grpc_status import rpc_status

PATIENCE = 20
SHAPES = {(False, False): "unary_unary", (True, True): "stream_stream", (False, True): "unary_stream", (True, False): "stream_unary"}


class Service:
    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(name).methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            shape = getattr(channel, SHAPES[method.client_streaming, method.server_streaming])
            call = shape(f"/{name}/{method.name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString)
            setattr(self, method.name, call)
            setattr(self, method.name + "Request", request)


class Consumer:
    """A stream: what is put is sent, what comes is read in order."""

    def __init__(self, **begin):
        self.requests = queue.Queue()
        self.say(begin=begin)
        self.call = consumer.Consume(iter(self.requests.get, None), timeout=PATIENCE)

    def say(self, **request):
        self.requests.put(consumer.ConsumeRequest(**request))

    def deliveries(self, count):
        """So many, in the portions in which they come."""
        got = []
        while len(got) < count:
            answer = next(self.call)
            assert answer.WhichOneof("response") == "deliveries", answer
            got += answer.deliveries.deliveries
        assert len(got) == count, got
        return got

    def answered(self):
        answer = next(self.call)
        assert answer.WhichOneof("response") == "answered", answer
        return answer.answered

    def end(self):
        self.requests.put(None)
        assert list(self.call) == []


def case(name):
    print(name, flush=True)


def failure(error):
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info), error
    return error.code(), info.reason


def refused(call, request, code, expected):
    try:
        call(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        assert failure(error) == (code, expected), error
    else:
        raise AssertionError(f"{request} was not refused")


def publish(*texts):
    for text in texts:
        request = messages.PublishRequest(message={"topic": "work/1", "payload_text": text, "properties": [{"name": "k", "value": "v"}]})
        messages.Publish(request, timeout=PATIENCE)


channel = grpc.insecure_channel(f"{sys.argv[1]}:{sys.argv[2]}")
pool = DescriptorPool(v1alpha.ProtoReflectionDescriptorDatabase(channel))
messages, groups, consumer = (Service(channel, pool, "postroad.v1." + name) for name in ["Messages", "Groups", "Consumer"])

case("groups")
assert groups.Set(groups.SetRequest(group="work", filters=["work/#"]), timeout=PATIENCE).is_new
assert not groups.Set(groups.SetRequest(group="work", filters=["work/#"]), timeout=PATIENCE).is_new
groups.Set(groups.SetRequest(group="other", filters=["other"]), timeout=PATIENCE)
page = groups.List(groups.ListRequest(page_size=1), timeout=PATIENCE)
assert [group.group for group in page.groups] == ["other"] and page.next_page_token, page
page = groups.List(groups.ListRequest(page_size=1, page_token=page.next_page_token), timeout=PATIENCE)
assert [group.group for group in page.groups] == ["work"], page
groups.Delete(groups.DeleteRequest(group="other"), timeout=PATIENCE)
refused(groups.Get, groups.GetRequest(group="other"), grpc.StatusCode.NOT_FOUND, "unknown_group")
refused(groups.Set, groups.SetRequest(group="a/b"), grpc.StatusCode.INVALID_ARGUMENT, "bad_request")

case("calls")
publish("one", "two")
taken = consumer.Take(consumer.TakeRequest(group="work", limit=1), timeout=PATIENCE).deliveries
assert [(d.message.topic, d.message.payload_text, d.attempt) for d in taken] == [("work/1", "one", 1)], taken
assert [(p.name, p.value) for p in taken[0].message.properties] == [("k", "v")], taken
name = taken[0].delivery
assert consumer.Extend(consumer.ExtendRequest(group="work", deliveries=[name], lease_seconds=600), timeout=PATIENCE).done == 1
assert consumer.Acknowledge(consumer.AcknowledgeRequest(group="work", deliveries=[name]), timeout=PATIENCE).done == 1
assert list(consumer.Acknowledge(consumer.AcknowledgeRequest(group="work", deliveries=[name]), timeout=PATIENCE).gone) == [name]
taken = consumer.Take(consumer.TakeRequest(group="work"), timeout=PATIENCE).deliveries
refuse = consumer.RefuseRequest(group="work", deliveries=[taken[0].delivery], after_seconds=0, reason="busy")
assert consumer.Refuse(refuse, timeout=PATIENCE).done == 1
taken = consumer.Take(consumer.TakeRequest(group="work", wait_seconds=5), timeout=PATIENCE).deliveries
assert [(d.message.payload_text, d.attempt, d.may_repeat) for d in taken] == [("two", 2, True)], taken
assert consumer.Acknowledge(consumer.AcknowledgeRequest(group="work", deliveries=[taken[0].delivery]), timeout=PATIENCE).done == 1
assert len(consumer.Take(consumer.TakeRequest(group="work"), timeout=PATIENCE).deliveries) == 0

case("a stream has as many as it wants at once, and more as it acknowledges")
stream = Consumer(group="work", prefetch=2)
publish(*(str(number) for number in range(5)))
got = stream.deliveries(2)
assert [d.message.payload_text for d in got] == ["0", "1"], got
stream.say(number=7, acknowledge={"deliveries": [got[0].delivery]})
assert (stream.answered().number, [d.message.payload_text for d in stream.deliveries(1)]) == (7, ["2"])
stream.say(number=8, refuse={"deliveries": [got[1].delivery], "dead": True, "reason": "odd"})
assert (stream.answered().done, [d.message.payload_text for d in stream.deliveries(1)]) == (1, ["3"])
stream.say(number=9, extend={"deliveries": [got[1].delivery]})
assert list(stream.answered().gone) == [got[1].delivery]

case("what a stream has when it ends is free at once")
assert groups.Get(groups.GetRequest(group="work"), timeout=PATIENCE).leased == 2
stream.end()
second = Consumer(group="work", prefetch=10)
got = second.deliveries(3)
assert sorted(d.message.payload_text for d in got) == ["2", "3", "4"], got
second.call.cancel()  # as if it had crashed
third = Consumer(group="work")
got = third.deliveries(3)
assert sorted(d.message.payload_text for d in got) == ["2", "3", "4"] and all(d.may_repeat for d in got), got
for number, delivery in enumerate(got):
    third.say(number=number, acknowledge={"deliveries": [delivery.delivery]})
assert [(answer.number, answer.done) for answer in (third.answered() for _ in got)] == [(0, 1), (1, 1), (2, 1)]
third.end()
shown = groups.Get(groups.GetRequest(group="work"), timeout=PATIENCE)
assert (shown.waiting, shown.leased) == (0, 0), shown

case("a stream that can't be ends with a reason")
for begin, code, expected in [
    ({"begin": {"group": "nobody"}}, grpc.StatusCode.NOT_FOUND, "unknown_group"),
    ({"begin": {"group": "work", "prefetch": 5000}}, grpc.StatusCode.INVALID_ARGUMENT, "bad_request"),
    ({"acknowledge": {"deliveries": ["0-0-1-1-1"]}}, grpc.StatusCode.INVALID_ARGUMENT, "bad_request"),
]:
    requests = queue.Queue()
    requests.put(consumer.ConsumeRequest(**begin))
    try:
        next(consumer.Consume(iter(requests.get, None), timeout=PATIENCE))
    except grpc.RpcError as error:
        assert failure(error) == (code, expected), (begin, error)
    else:
        raise AssertionError(f"{begin} was not refused")
    requests.put(None)
print("all passed")
