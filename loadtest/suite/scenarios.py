"""What is measured: which load, on which listener of a peer set up how."""

import dataclasses

from peers import Setup

PROXY = Setup("proxy")
CACHE = Setup("cache")
CONNECTIONS = 64
# 64 requests in flight, as in all other scenarios.
H2_CONNECTIONS, H2_STREAMS = 16, 4
POST_BYTES = 16384
FRAME_BYTES = 128
CALL = b"\0" + (100).to_bytes(4, "big") + b"x" * 100  # a gRPC message of 100 bytes, not compressed
CALL_PATH = "/echo.Echo/Say"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    says: str
    setup: Setup = PROXY
    path: str = "/1k"
    bytes: int = 1024  # of the response's body
    listener: str = "http"  # which address of the peer
    generator: str = "wrk"
    new: bool = False  # a connection for each request
    only: tuple = ()  # peers, if not all that can

    def takes(self, peer):
        return peer.takes(self.setup) and (not self.only or peer.name in self.only)

    @property
    def algorithm(self):
        return self.setup.algorithm


def chain_of(algorithm, remembered=10_000):
    return Setup("chain", algorithm=algorithm, remembered=remembered)


ALL = (
    Scenario("plain-1k", "GET, 1 KiB"),
    Scenario("plain-64k", "GET, 64 KiB", path="/64k", bytes=65536),
    Scenario("logged-1k", "GET, 1 KiB, each written to a log as JSON", Setup("logged")),
    Scenario("connection-per-request", "GET, 1 KiB, a TCP connection for each", new=True),
    Scenario("tls-kept", "GET, 1 KiB, TLS 1.3", listener="https"),
    Scenario("tls-new", "GET, 1 KiB, a TLS 1.3 handshake for each", listener="https", new=True),
    Scenario("h2-tls", "GET, 1 KiB, HTTP/2 over TLS 1.3", listener="https", generator="h2load"),
    Scenario("cache-1k", "GET, 1 KiB, answered from the cache", CACHE),
    Scenario("cache-64k", "GET, 64 KiB, answered from the cache", CACHE, path="/64k", bytes=65536),
    Scenario("chain", "GET, 1 KiB: JWT HS256, limit, headers, JSON log, metrics; 256 consumers", chain_of("HS256")),
    Scenario("chain-uncached", "the same, every token verified anew", chain_of("HS256", 0), only=("bare", "tollgate")),
    Scenario("chain-rs256", "the same with RS256", chain_of("RS256")),
    Scenario("chain-es256", "the same with ES256", chain_of("ES256")),
    Scenario("routes-1k", "GET, 1 KiB, the 501st of 1,000 routes", Setup("routes", routes=1000), "/r500/items/42"),
    Scenario("routes-10k", "GET, 1 KiB, the 5,001st of 10,000 routes", Setup("routes", routes=10_000), "/r5000/items/42"),
    Scenario("post-16k", "POST, 16 KiB", path="/post", bytes=2),
    Scenario("grpc", "gRPC unary, HTTP/2 in cleartext on both sides", path=CALL_PATH, bytes=len(CALL), listener="grpc",
             generator="h2load"),
    Scenario("websocket", "WebSocket, a frame of 128 bytes there and back", path="/ws", bytes=FRAME_BYTES,
             listener="websocket", generator="websocket"),
    Scenario("flood-refused", "GET, refused by `limits.flood`", Setup("flood"), only=("bare", "tollgate")),
)
BY_NAME = {scenario.name: scenario for scenario in ALL}
# Measured at fixed rates too.
PACED = ("plain-1k", "tls-kept", "chain")
# What `--quick` takes.
QUICK, QUICK_PEERS, QUICK_PACED = ("plain-1k", "h2-tls", "cache-1k", "chain"), ("bare", "tollgate", "nginx"), ("chain",)
