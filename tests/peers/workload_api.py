"""A SPIFFE Workload API over one workload, whose keys are files:

    workload_api.py SOCKET FOLDER

It gives whoever asks what is in `svid.der`, `key.der` and `bundle.der`, and again whenever `svid.der`
changes. Whoever does not say the security header is refused, as the specification wants.
"""

import os
import sys
import threading
from concurrent import futures

import grpc

socket, folder = sys.argv[1:3]


def field(number, content):
    length, size = len(content), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def read(name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def fetch(_, context):
    if ("workload.spiffe.io", "true") not in context.invocation_metadata():
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
    told = None
    while context.is_active():
        svid = read("svid.der")
        if svid != told:
            told = svid
            name = read("id").strip()
            parts = [name, svid, read("key.der"), read("bundle.der")]
            one = b"".join(field(number, part) for number, part in enumerate(parts, 1))
            yield field(1, one)
        threading.Event().wait(0.1)


server = grpc.server(futures.ThreadPoolExecutor(4))
calls = {"FetchX509SVID": grpc.unary_stream_rpc_method_handler(fetch)}
handler = grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", calls)
server.add_generic_rpc_handlers([handler])
server.add_insecure_port(f"unix:{socket}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
