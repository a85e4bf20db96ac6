"""A client that knows nothing but the address: the schema comes by reflection.

Usage: client.py ADDRESS SUBJECT
"""

import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address, subject):
    # grpcio sends the path of a Unix socket as :authority, which HTTP/2 servers refuse.
    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")])
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) >= {"exeat.v1.CheckService", "grpc.health.v1.Health"}, database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName("exeat.v1.CheckService")

    def call(method, **fields):
        found = service.methods_by_name[method]
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(found.input_type)())
        rpc = channel.unary_unary(
            f"/exeat.v1.CheckService/{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        return json_format.MessageToDict(rpc(request, timeout=5))

    tool = {"type": "tool", "id": "mcp://crm/search"}
    question = {"subject": subject, "action": "tools/call", "resource": tool, "context": {"purpose": "testing"}}
    allowed = call("Check", **question)["decision"]
    assert allowed["outcome"] == "OUTCOME_ALLOW" and allowed["reasons"] == ["REASON_OK"], allowed
    denied = call("Check", **{**question, "context": {"purpose": "mischief"}})["decision"]
    assert denied["outcome"] == "OUTCOME_DENY" and denied["reasons"] == ["REASON_CONTROL_FAILED"], denied
    assert denied["controls"][0]["clauses"][0]["reads"][0] == {"path": "request.purpose", "value": "'mischief'"}, denied
    explained = call("Explain", decisionId=denied["id"])
    assert explained["decision"]["reasons"] == denied["reasons"] and explained["action"] == "tools/call", explained

    batch = call("BatchCheck", items=[question, {**question, "context": {"purpose": "mischief"}}, {"action": "x"}])["items"]
    assert [next(iter(item)) for item in batch] == ["decision", "decision", "error"], batch
    assert batch[2]["error"] == {"code": 3, "message": batch[2]["error"]["message"], "field": "resource"}, batch

    try:
        call("Check", subject=subject, action="tools/call")
        raise AssertionError("a question without a resource was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "resource" in error.details(), error
    try:
        call("Check", **{**question, "subject": "somebody-else"})
        raise AssertionError("a question for somebody else was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error

    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "exeat.v1.CheckService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
        assert status == health_pb2.HealthCheckResponse.SERVING, (name, status)
    print("ok", address)


if __name__ == "__main__":
    main(*sys.argv[1:])
