"""A WebSocket origin that says back what it hears, and does what a message that begins with `!` tells it."""

import asyncio
import threading

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MOST = 64 << 20


def choose(_socket, offered):
    return "chat" if "chat" in offered else None


class SocketOrigin:
    """Serves in a thread of its own."""

    def __init__(self):
        self.closed = []
        self.opened = []
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait(10)

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.start())
        ready.set()
        self.loop.run_forever()

    async def start(self):
        self.server = await serve(self.talk, "127.0.0.1", 0, max_size=MOST, select_subprotocol=choose)
        self.port = self.server.sockets[0].getsockname()[1]

    async def talk(self, socket):
        path = socket.request.path
        self.opened.append((path, socket.request.headers))
        try:
            async for message in socket:
                if isinstance(message, str) and message.startswith("!close "):
                    _, code, reason = message.split(" ", 2)
                    await socket.close(int(code), reason)
                elif message == "!abort":
                    socket.transport.abort()
                else:
                    await socket.send(message)
        except ConnectionClosed:
            pass
        self.closed.append((path, socket.close_code, socket.close_reason))

    def ends(self, path):
        """How the sockets of a path were closed: code and reason."""
        return [(code, reason) for known, code, reason in list(self.closed) if known == path]

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
