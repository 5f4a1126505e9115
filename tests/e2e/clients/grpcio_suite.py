"""grpcio against a server: python3 grpcio_suite.py HOST PORT. Prints each case, and "all passed" at the end.

It has no file of ours: messages and methods are those that the server's reflection describes, of which both versions are asked.
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import proto_reflection_descriptor_database as v1alpha
from grpc_status import rpc_status

PATIENCE = 20
SHAPES = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary", (True, True): "stream_stream"}


class Service:
    """A service as it is described, with a method for each of its own."""

    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(name).methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            shape = getattr(channel, SHAPES[method.client_streaming, method.server_streaming])
            call = shape(f"/{name}/{method.name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString)
            setattr(self, method.name, call)
            setattr(self, method.name + "Request", request)


def case(name):
    print(name, flush=True)


def reason(error):
    status = rpc_status.from_call(error)
    assert status.code == error.code().value[0], (status, error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info) and info.domain == "postroad", status
    return info.reason


def refused(call, request, code, expected, **more):
    try:
        call(request, timeout=PATIENCE, **more)
    except grpc.RpcError as error:
        assert (error.code(), reason(error)) == (code, expected), error
    else:
        raise AssertionError(f"{request} was not refused")


def reflection_v1(channel):
    """The names of the services, by version 1, whose messages are those of v1alpha under another name."""
    from grpc_reflection.v1alpha import reflection_pb2 as messages

    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=messages.ServerReflectionRequest.SerializeToString,
        response_deserializer=messages.ServerReflectionResponse.FromString,
    )
    answer = next(call(iter([messages.ServerReflectionRequest(list_services="")]), timeout=PATIENCE))
    return {service.name for service in answer.list_services_response.service}


channel = grpc.insecure_channel(f"{sys.argv[1]}:{sys.argv[2]}")

case("reflection")
database = v1alpha.ProtoReflectionDescriptorDatabase(channel)
ours = {"postroad.v1.Messages", "postroad.v1.Clients", "postroad.v1.Admin", "grpc.health.v1.Health"}
assert ours <= set(database.get_services()), database.get_services()
assert ours <= reflection_v1(channel), reflection_v1(channel)
pool = DescriptorPool(database)
messages, clients, admin = (Service(channel, pool, "postroad.v1." + name) for name in ["Messages", "Clients", "Admin"])

case("health and status")
health = health_pb2_grpc.HealthStub(channel)
for name in ["", "postroad.v1.Messages", "postroad.v1.Clients", "postroad.v1.Admin"]:
    assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE).status == 1, name
watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
assert next(watch).status == 1
watch.cancel()
status = admin.GetStatus(admin.GetStatusRequest(), timeout=PATIENCE)
assert status.phase == 2 and status.version and not status.reason, status

case("publish")
published = messages.Publish(messages.PublishRequest(message={"topic": "g/1", "payload": b"\x00\xff", "qos": 2}), timeout=PATIENCE).published
assert len(published.id) == 32 and published.has_subscribers, published
unsaid = messages.Publish(messages.PublishRequest(message={"topic": "g/2", "payload_text": "unsaid", "qos": 0}), timeout=PATIENCE).published
assert unsaid.id == "", unsaid
bad = grpc.StatusCode.INVALID_ARGUMENT
refused(messages.Publish, messages.PublishRequest(message={"topic": "g/#"}), bad, "bad_request")
refused(messages.Publish, messages.PublishRequest(), bad, "bad_request")

case("publish many")
several = [{"topic": "g/3"}, {"topic": "g/+"}, {"topic": "g/4", "properties": [{"name": "k", "value": "v"}]}]
results = messages.PublishMany(messages.PublishManyRequest(messages=several), timeout=PATIENCE).results
assert [result.WhichOneof("outcome") for result in results] == ["published", "error", "published"], results
assert (results[1].error.code, results[1].error.reason) == (3, "bad_request"), results
request = messages.PublishManyRequest(messages=[{"payload_text": "all"}], topics=["g/5", "g/6"])
results = messages.PublishMany(request, timeout=PATIENCE).results
assert len({result.published.id for result in results}) == 2, results

case("publish stream")
requests = (messages.PublishStreamRequest(number=n, messages=[{"topic": "g/s", "payload_text": f"{n}/{m}"} for m in range(10)]) for n in range(300))
numbers = []
for answer in messages.PublishStream(requests, timeout=PATIENCE):
    assert all(result.published.id for result in answer.results) and len(answer.results) == 10, answer
    numbers.append(answer.number)
assert numbers == list(range(300)), numbers

case("clients")
found = clients.List(clients.ListRequest(filter={"prefix": "sub"}), timeout=PATIENCE).clients
assert [client.client for client in found] == ["subscriber"], found
refused(clients.List, clients.ListRequest(page_size=5000), bad, "bad_request")
refused(clients.Get, clients.GetRequest(client="nobody"), grpc.StatusCode.NOT_FOUND, "unknown_client")
shown = clients.Get(clients.GetRequest(client="subscriber"), timeout=PATIENCE)
assert shown.connected and shown.session.subscriptions == 1, shown

case("cancel")
# A call that is given up leaves the connection and the server as they were.
stream = messages.PublishStream(iter([messages.PublishStreamRequest(number=1, messages=[{"topic": "elsewhere"}])]), timeout=PATIENCE)
stream.cancel()
messages.Publish(messages.PublishRequest(message={"topic": "g/end", "payload_text": "end"}), timeout=PATIENCE)
print("all passed")
