"""A gRPC origin of all four kinds. Messages are plain bytes: no schema is needed to see whether they arrive."""

import threading
from concurrent import futures

import grpc

MOST = 64 << 20
OPTIONS = [("grpc.max_receive_message_length", MOST), ("grpc.max_send_message_length", MOST)]


class CallOrigin:
    """Serves in threads of its own, and remembers what became of calls."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.left = []
        self.metadata = {}
        self.server = grpc.server(futures.ThreadPoolExecutor(32), options=OPTIONS)
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailMidway": grpc.unary_stream_rpc_method_handler(self.fail_midway),
            "Wait": grpc.unary_stream_rpc_method_handler(self.wait),
        }
        for service in ("test.Calls", "test.Guarded"):
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, kinds),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def note(self, context):
        self.metadata = dict(context.invocation_metadata())
        self.left.append(context.time_remaining())

    def unary(self, request, context):
        self.note(context)
        context.send_initial_metadata((("first-bin", b"\x00\xff\x80"), ("first", "one")))
        context.set_trailing_metadata((("last-bin", self.metadata.get("asked-bin", b"")), ("last", "two")))
        return request

    def down(self, request, context):
        self.note(context)
        for number in range(int(request)):
            yield str(number).encode()

    def up(self, requests, context):
        self.note(context)
        return str(sum(len(request) for request in requests)).encode()

    def both(self, requests, context):
        self.note(context)
        yield from requests

    def fail(self, _request, context):
        context.set_trailing_metadata((("why-bin", b"\x01\x02"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not yet – später")

    def fail_midway(self, _request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    def wait(self, _request, context):
        """Says one thing and then nothing until the client has gone."""
        self.note(context)
        gone = threading.Event()
        context.add_callback(gone.set)
        yield b"begun"
        if gone.wait(15):
            self.cancelled.set()

    def close(self):
        self.server.stop(None).wait(5)
