"""A receiver of OTLP/gRPC made from the official definitions, in a process of its own.

Prints its address; once its input ends it prints everything it was sent, as JSON.
"""

import json
import sys
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

got = {"spans": [], "events": [], "metrics": [], "unknown": 0}


def take(request, kind):
    # What the definitions do not know would be kept aside: there must be nothing.
    if request.SerializeToString(deterministic=True) != strip(request):
        got["unknown"] += 1
    for resource in getattr(request, kind[0]):
        for scoped in getattr(resource, kind[1]):
            got[kind[3]].extend(MessageToDict(item) for item in getattr(scoped, kind[2]))


def strip(request):
    copy = type(request)()
    copy.CopyFrom(request)
    copy.DiscardUnknownFields()
    return copy.SerializeToString(deterministic=True)


class Traces(traces_grpc.TraceServiceServicer):
    def Export(self, request, context):
        take(request, ("resource_spans", "scope_spans", "spans", "spans"))
        return traces.ExportTraceServiceResponse()


class Logs(logs_grpc.LogsServiceServicer):
    def Export(self, request, context):
        take(request, ("resource_logs", "scope_logs", "log_records", "events"))
        return logs.ExportLogsServiceResponse()


class Metrics(metrics_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        take(request, ("resource_metrics", "scope_metrics", "metrics", "metrics"))
        return metrics.ExportMetricsServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
traces_grpc.add_TraceServiceServicer_to_server(Traces(), server)
logs_grpc.add_LogsServiceServicer_to_server(Logs(), server)
metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"http://127.0.0.1:{port}", flush=True)
sys.stdin.read()
server.stop(None).wait()
json.dump(got, sys.stdout)
