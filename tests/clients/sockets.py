"""WebSockets by two implementations in Python: `websockets`, and `wsproto` on a plain socket."""

import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage)

from house import KEY, Scenarios, eventually

SCENARIOS = Scenarios()
MOST = 64 << 20


def open_socket(house, path, secure=False, **options):
    options.setdefault("max_size", MOST)
    if secure:
        context = ssl.create_default_context(cafile=str(house.cert))
        return connect(f"wss://localhost:{house.tls}{path}", ssl=context, **options)
    return connect(f"ws://127.0.0.1:{house.web}{path}", **options)


def says_back(opened, message):
    opened.send(message)
    heard = opened.recv(timeout=30)
    assert heard == message, f"{len(heard)} of {len(message)}"


def talk(house, secure):
    with open_socket(house, "/sockets/talk", secure) as opened:
        says_back(opened, "hello ünicode \U0001f642")
        says_back(opened, "")
        says_back(opened, b"\x00\x01\xff")
        says_back(opened, os.urandom(1 << 20))
        says_back(opened, os.urandom(20 << 20))


@SCENARIOS("websockets", "text, binary, 1 MiB and 20 MiB of noise")
def plain(house):
    talk(house, False)


@SCENARIOS("websockets", "the same over TLS")
def secured(house):
    talk(house, True)


@SCENARIOS("websockets", "permessage-deflate is between the ends alone")
def deflated(house):
    with open_socket(house, "/sockets/deflate") as opened:
        assert opened.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        says_back(opened, "again and again " * 50_000)
    with open_socket(house, "/sockets/plain", compression=None) as opened:
        assert "Sec-WebSocket-Extensions" not in opened.response.headers
        says_back(opened, "again and again " * 50_000)


@SCENARIOS("websockets", "a message in fragments, pings between")
def fragments(house):
    with open_socket(house, "/sockets/fragments") as opened:
        def parts():
            for number in range(30):
                if number % 10 == 5:
                    assert opened.ping().wait(10)
                yield f"part {number};"

        opened.send(parts())
        assert opened.recv(timeout=10) == "".join(f"part {number};" for number in range(30))


@SCENARIOS("websockets", "a subprotocol is negotiated")
def subprotocol(house):
    with open_socket(house, "/sockets/protocol", subprotocols=["other", "chat"]) as opened:
        assert opened.subprotocol == "chat", opened.subprotocol


@SCENARIOS("websockets", "close codes and reasons from either end: 1000, 1001, 3000, 4999")
def codes(house):
    for code, reason in [(1000, "done"), (1001, "leaving"), (3000, "ünicode"), (4999, "x" * 100)]:
        path = f"/sockets/close/{code}"
        with open_socket(house, path) as opened:
            opened.close(code, reason)
        eventually("the origin knows", lambda path=path: house.sockets.ends(path))
        assert house.sockets.ends(path) == [(code, reason)], house.sockets.ends(path)
        with open_socket(house, "/sockets/closed") as opened:
            opened.send(f"!close {code} {reason}")
            try:
                opened.recv(timeout=10)
                raise AssertionError("it was not closed")
            except (ConnectionClosedOK, ConnectionClosedError) as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed


@SCENARIOS("websockets", "an origin that vanishes: the client is told by the end of the connection")
def vanishes(house):
    with open_socket(house, "/sockets/vanishes") as opened:
        opened.send("!abort")
        try:
            opened.recv(timeout=10)
            raise AssertionError("it was not closed")
        except ConnectionClosedError as closed:
            assert closed.rcvd is None


@SCENARIOS("websockets", "a client that vanishes: the origin is told")
def client_vanishes(house):
    opened = open_socket(house, "/sockets/client-vanishes")
    says_back(opened, "hello")
    opened.socket.shutdown(socket.SHUT_RDWR)
    eventually("the origin knows", lambda: house.sockets.ends("/sockets/client-vanishes"))
    assert house.sockets.ends("/sockets/client-vanishes") == [(1006, "")]
    opened.close()


@SCENARIOS("websockets", "quiet for longer than response and idle")
def quiet(house):
    with open_socket(house, "/sockets/quiet", ping_interval=None) as opened:
        says_back(opened, "one")
        time.sleep(2.6)
        says_back(opened, "two")


@SCENARIOS("websockets", "steps come first: 401 without a key, a socket with one")
def steps(house):
    try:
        open_socket(house, "/members/chat")
        raise AssertionError("a stranger was let in")
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
        assert refused.response.headers["Content-Type"] == "application/problem+json"
    with open_socket(house, "/members/chat", additional_headers={"x-api-key": KEY}) as opened:
        says_back(opened, "a member")
    _, headers = house.sockets.opened[-1]
    assert "x-api-key" not in headers, "the key stays here"
    assert headers["x-forwarded-for"] == "127.0.0.1"


@SCENARIOS("websockets", "200 at once, and every byte is in the log")
def many(house):
    def one(number):
        with open_socket(house, "/sockets/many", compression=None) as opened:
            for turn in range(5):
                says_back(opened, f"socket {number}, turn {turn} ".ljust(100))

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(200)))
    eventually("all are in the log", lambda: len(house.lines("/sockets/many")) == 200)
    for line in house.lines("/sockets/many"):
        # Each way five frames of 100 bytes and one that closes, the client's with masks.
        assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 5 * 106 + 8, 5 * 102 + 4), line


class Plain:
    """A WebSocket of wsproto's on a socket of our own."""

    def __init__(self, house, path, headers=()):
        self.stream = socket.create_connection(("127.0.0.1", house.web), timeout=20)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.send(Request(host=f"127.0.0.1:{house.web}", target=path, extra_headers=list(headers)))

    def send(self, event):
        self.stream.sendall(self.protocol.send(event))

    def next(self):
        """The next event; the end of the connection is an error."""
        while True:
            for event in self.protocol.events():
                return event
            read = self.stream.recv(1 << 16)
            assert read, "the connection has ended"
            self.protocol.receive_data(read)

    def message(self):
        """The next message, its pieces together."""
        parts = []
        while True:
            event = self.next()
            assert isinstance(event, (TextMessage, BytesMessage)), event
            parts.append(event.data)
            if event.message_finished:
                return parts[0][:0].join(parts)


@SCENARIOS("wsproto", "handshake, text, binary, ping, goodbye with the code that was said")
def by_hand(house):
    opened = Plain(house, "/sockets/by-hand")
    assert isinstance(opened.next(), AcceptConnection)
    opened.send(TextMessage("hello"))
    assert opened.message() == "hello"
    noise = os.urandom(1 << 20)
    opened.send(BytesMessage(noise))
    assert bytes(opened.message()) == noise
    opened.send(Ping(b"there?"))
    pong = opened.next()
    assert isinstance(pong, Pong) and bytes(pong.payload) == b"there?", pong
    opened.send(CloseConnection(4001, "enough"))
    closed = opened.next()
    assert isinstance(closed, CloseConnection) and closed.code == 4001, closed
    assert opened.stream.recv(1) == b"", "the origin closes, and so does the gateway"


@SCENARIOS("wsproto", "a byte at a time, the handshake with the first message behind it")
def bit_by_bit(house):
    opened = Plain(house, "/sockets/bits")
    assert isinstance(opened.next(), AcceptConnection)
    for byte in opened.protocol.send(TextMessage("slowly")):
        opened.stream.sendall(bytes([byte]))
        time.sleep(0.005)
    assert opened.message() == "slowly"


@SCENARIOS("wsproto", "refused with the answer of a step")
def refused(house):
    opened = Plain(house, "/members/by-hand")
    event = opened.next()
    assert isinstance(event, RejectConnection) and event.status_code == 401, event
