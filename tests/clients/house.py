"""What every scenario needs: the gateway, what is behind it, and a way to name scenarios."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

from origin import Origin
from rpc_origin import CallOrigin
from socket_origin import SocketOrigin

KEY = "let-me-in"
PATIENCE = 20


class Scenarios:
    """The scenarios of one part, in the order in which they are written."""

    def __init__(self):
        self.known = []

    def __call__(self, client, what):
        def add(function):
            self.known.append((client, what, function))
            return function

        return add

    def all(self, _house):
        return list(self.known)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, condition, patience=PATIENCE):
    """Waits until a condition holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"it never came true that {what}"
        time.sleep(0.02)


class House:
    """The gateway with its origins, from the beginning of a `with` to its end."""

    def __init__(self, folder):
        self.folder = folder
        self.web, self.tls, self.admin = free_port(), free_port(), free_port()
        self.log = folder / "access.log"
        self.cert = folder / "cert.pem"

    def __enter__(self):
        self.log.unlink(missing_ok=True)
        self.make_certificate()
        self.origin, self.sockets, self.calls = Origin(), SocketOrigin(), CallOrigin()
        here = os.path.dirname(os.path.abspath(__file__))
        shutil.copy(os.path.join(here, "tollgate.yaml"), self.folder)
        self.errors = open(self.folder / "gateway.log", "wb")
        command = [os.environ["TOLLGATE"], "run", "--config", str(self.folder / "tollgate.yaml")]
        self.gateway = subprocess.Popen(command, env=self.environment(), stderr=self.errors)
        eventually("the gateway is ready", self.is_ready)
        return self

    def environment(self):
        told = {
            "WEB": self.web, "TLS": self.tls, "ADMIN": self.admin, "LOG": self.log,
            "APP": self.origin.port, "SOCKETS": self.sockets.port, "CALLS": self.calls.port,
            "KEY_HASH": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest(),
        }
        return os.environ | {name: str(value) for name, value in told.items()}

    def make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(self.folder / "key.pem"), "-out", str(self.cert)],
            check=True, capture_output=True)

    def is_ready(self):
        assert self.gateway.poll() is None, (self.folder / "gateway.log").read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=2).status == 200
        except OSError:
            return False

    def lines(self, path):
        """The lines of the access log about a path, when there are any."""
        def found():
            text = self.log.read_text() if self.log.exists() else ""
            return [line for line in map(json.loads, text.splitlines()) if line["path"] == path]

        eventually(f"{path} is in the log", found)
        return found()

    def is_broken(self):
        """Whether the gateway has said that something is wrong with itself."""
        told = (self.folder / "gateway.log").read_text()
        bad = self.gateway.poll() is not None or "panic" in told or "error:" in told
        if bad:
            print(told)
        return bad

    def __exit__(self, *_):
        self.gateway.terminate()
        try:
            self.gateway.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
        self.errors.close()
        for origin in (self.origin, self.sockets, self.calls):
            origin.close()
