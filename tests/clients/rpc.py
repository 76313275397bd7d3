"""gRPC's own client in front of the gateway, its own server behind."""

import time
from concurrent import futures

import grpc

from house import KEY, Scenarios, eventually
from rpc_origin import OPTIONS

SCENARIOS = Scenarios()
BIG = bytes(range(256)) * (20 << 10)  # 5 MiB, more than the 4 that gRPC itself allows by default


def channel(house, secure=False, **options):
    options = [*OPTIONS, *options.get("options", [])]
    if secure:
        credentials = grpc.ssl_channel_credentials(house.cert.read_bytes())
        return grpc.secure_channel(f"localhost:{house.tls}", credentials, options=options)
    return grpc.insecure_channel(f"127.0.0.1:{house.web}", options=options)


def method(name, service="test.Calls"):
    return f"/{service}/{name}"


def refusal(call):
    """The status that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was not refused")


def all_kinds(house, secure):
    with channel(house, secure) as over:
        assert over.unary_unary(method("Unary"))(b"hello") == b"hello"
        assert list(over.unary_stream(method("Down"))(b"5")) == [b"0", b"1", b"2", b"3", b"4"]
        assert over.stream_unary(method("Up"))(iter([b"abc", b"", b"defgh"])) == b"8"
        said = [b"one", b"", b"three" * 1000]
        assert list(over.stream_stream(method("Both"))(iter(said))) == said
        assert over.unary_unary(method("Unary"))(b"") == b""


@SCENARIOS("grpcio", "all four kinds over h2c")
def cleartext(house):
    all_kinds(house, False)


@SCENARIOS("grpcio", "all four kinds over TLS")
def secured(house):
    all_kinds(house, True)


@SCENARIOS("grpcio", "both ways in turn: each answer is there before the next question")
def in_turn(house):
    with channel(house) as over:
        heard = []

        def ask():
            for number in range(20):
                eventually("the answer before is there", lambda number=number: len(heard) == number)
                yield str(number).encode()

        for answer in over.stream_stream(method("Both"))(ask()):
            heard.append(answer)
        assert heard == [str(number).encode() for number in range(20)]


@SCENARIOS("grpcio", "5 MiB there and back, and in a stream")
def big(house):
    with channel(house) as over:
        assert over.unary_unary(method("Unary"))(BIG, timeout=60) == BIG
        assert over.stream_unary(method("Up"))(iter([BIG] * 3), timeout=60) == str(3 * len(BIG)).encode()


@SCENARIOS("grpcio", "compressed messages")
def compressed(house):
    with channel(house) as over:
        call = over.unary_unary(method("Unary"))
        assert call(BIG, timeout=60, compression=grpc.Compression.Gzip) == BIG


@SCENARIOS("grpcio", "metadata, binary and repeated, first and last")
def metadata(house):
    with channel(house) as over:
        sent = (("asked-bin", b"\x00\x01\xfe\xff"), ("asked", "plain"))
        _, call = over.unary_unary(method("Unary")).with_call(b"x", metadata=sent)
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert house.calls.metadata["asked-bin"] == b"\x00\x01\xfe\xff" and house.calls.metadata["asked"] == "plain"
        assert (first["first-bin"], first["first"]) == (b"\x00\xff\x80", "one"), first
        assert (last["last-bin"], last["last"]) == (b"\x00\x01\xfe\xff", "two"), last


@SCENARIOS("grpcio", "a failure with its message and trailers, at once and midway")
def failures(house):
    with channel(house) as over:
        error = refusal(lambda: over.unary_unary(method("Fail"))(b"x"))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not yet – später")
        assert dict(error.trailing_metadata())["why-bin"] == b"\x01\x02"
        heard = []
        error = refusal(lambda: heard.extend(over.unary_stream(method("FailMidway"))(b"x")))
        assert error.code() == grpc.StatusCode.DATA_LOSS, error


@SCENARIOS("grpcio", "what the gateway refuses is a status: unknown service, no credentials")
def refusals(house):
    with channel(house) as over:
        error = refusal(lambda: over.unary_unary(method("Unary", "test.Nobody"))(b"x"))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        error = refusal(lambda: over.unary_unary(method("Unary", "test.Guarded"))(b"x"))
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
        known = (("x-api-key", KEY),)
        assert over.unary_unary(method("Unary", "test.Guarded"))(b"x", metadata=known) == b"x"
        error = refusal(lambda: list(over.stream_stream(method("Both", "test.Guarded"))(iter([b"x"] * 50))))
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error


@SCENARIOS("grpcio", "a deadline is told to the server, kept, and ends its call")
def deadline(house):
    house.calls.cancelled.clear()
    with channel(house) as over:
        over.unary_unary(method("Unary"))(b"x", timeout=30)
        # Rounded up by the client.
        assert 20 < house.calls.left[-1] < 31, house.calls.left[-1]
        began = time.monotonic()
        error = refusal(lambda: list(over.unary_stream(method("Wait"))(b"x", timeout=0.7)))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert 0.5 < time.monotonic() - began < 5
        eventually("the server's call has ended", house.calls.cancelled.is_set)


@SCENARIOS("grpcio", "a cancelled call is cancelled at the server, and its connection goes on")
def cancelled(house):
    house.calls.cancelled.clear()
    with channel(house) as over:
        call = over.unary_stream(method("Wait"))(b"x")
        assert next(call) == b"begun"
        call.cancel()
        eventually("the server's call has ended", house.calls.cancelled.is_set)
        assert over.unary_unary(method("Unary"))(b"still here") == b"still here"


@SCENARIOS("grpcio", "a stream that is quiet for longer than response and idle")
def quiet(house):
    with channel(house) as over:
        def ask():
            yield b"one"
            time.sleep(2.6)
            yield b"two"

        assert list(over.stream_stream(method("Both"))(ask())) == [b"one", b"two"]


@SCENARIOS("grpcio", "1,000 calls, 32 at once, on one connection")
def many(house):
    with channel(house) as over, futures.ThreadPoolExecutor(32) as pool:
        call = over.unary_unary(method("Unary"))
        asked = [str(number).encode() for number in range(1000)]
        assert list(pool.map(call, asked)) == asked
