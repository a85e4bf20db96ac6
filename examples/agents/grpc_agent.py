"""An agent that asks exeat before each tool it calls, over gRPC.

    pip install grpcio grpcio-reflection
    python grpc_agent.py 127.0.0.1:7430 billing-agent mcp://crm/search
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Denied(Exception):
    """Policy says no; whoever reads it may ask for an exception, and not try again."""


class Exeat:
    def __init__(self, address):
        # Over a Unix socket Python sends a host name that no server takes; this says one.
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel(address, options)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("exeat.v1.CheckService").FindMethodByName("Check")
        self.request = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        self.check = self.channel.unary_unary(
            "/exeat.v1.CheckService/Check",
            request_serializer=self.request.SerializeToString,
            response_deserializer=answer.FromString,
        )

    def ask(self, subject, tool, **context):
        """The decision; raises Denied for a no, and grpc.RpcError where nobody could say."""
        request = self.request(subject=subject, action="tools/call")
        request.resource.type, request.resource.id = "tool", tool
        request.context.update(context)
        decision = self.check(request, timeout=1).decision
        def name(field, number):
            return decision.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[number].name

        outcome = name("outcome", decision.outcome)
        if outcome not in ("OUTCOME_ALLOW", "OUTCOME_ALLOW_BY_EXCEPTION"):
            why = [control.control_id for control in decision.controls]
            why = why or [name("reasons", reason) for reason in decision.reasons]
            raise Denied(f"{decision.id}: {', '.join(why)} {decision.remedy}")
        return decision


if __name__ == "__main__":
    address, subject, tool = sys.argv[1:4]
    try:
        print("allowed", Exeat(address).ask(subject, tool, purpose="billing").id)
    except Denied as denied:
        print("denied", denied)
        sys.exit(3)
