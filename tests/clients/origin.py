"""An HTTP/1.1 origin: pages, events, bodies. It remembers what it was asked."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGE = Path(__file__).with_name("page.html")
TEXT = ("All that is compressed here says the same again and again.\n" * 400).encode()


class Origin:
    """Serves in a thread of its own."""

    def __init__(self):
        self.asked = []
        origin = self

        class Handler(Answers):
            asked = origin.asked

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, path):
        """The requests for a path, oldest first: method, header fields, length of the body."""
        return [asked for asked in list(self.asked) if asked["path"] == path]

    def close(self):
        self.server.shutdown()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # Many connections come at once.
    request_queue_size = 1024


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    asked = []

    def handle_expect_100(self):
        # Whoever asks for it gets it when the body is read.
        return True

    def answer(self):
        target = urlsplit(self.path)
        told = {"path": target.path, "method": self.command, "headers": dict(self.headers.items()), "body": 0}
        self.asked.append(told)
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        route, what = (target.path.split("/") + [""])[1:3]
        if route == "events":
            return self.events(query)
        digest, told["body"] = self.take_body()
        if what == "text":
            return self.send(TEXT, {"content-type": "text/plain", "etag": '"same"'})
        if what == "bytes":
            return self.give(int(query["count"]))
        if route == "page":
            return self.send(PAGE.read_bytes(), {"content-type": "text/html; charset=utf-8"})
        self.send(f"{told['body']} {digest}".encode(), {"content-type": "text/plain", "x-total": "42", "x-hidden": "1"})

    do_GET = do_HEAD = do_PUT = do_POST = do_OPTIONS = do_DELETE = answer

    def send(self, body, fields):
        self.send_response(200)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give(self, count):
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(count))
        self.end_headers()
        piece = bytes(range(256)) * 256
        while count > 0:
            count -= self.wfile.write(piece[:count])

    def take_body(self):
        digest, length = hashlib.sha256(), 0
        if self.headers.get("expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        for piece in self.pieces():
            digest.update(piece)
            length += len(piece)
        return digest.hexdigest(), length

    def pieces(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("content-length") or 0)
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def events(self, query):
        """`count` events, `gap` seconds apart, counted on from the last one that the client had."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-store")
        self.send_header("connection", "close")
        self.end_headers()
        first = int(self.headers.get("last-event-id") or 0) + 1
        self.say("retry: 100\n\n")
        for number in range(first, first + int(query.get("count", 3))):
            time.sleep(float(query.get("gap", 0.3)))
            self.say(f"id: {number}\ndata: {number} {time.time()}\n\n")
        self.close_connection = True

    def say(self, text):
        self.wfile.write(text.encode())
        self.wfile.flush()

    def log_message(self, *_):
        pass
