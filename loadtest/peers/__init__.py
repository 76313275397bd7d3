"""The proxies that take part, each set up for what a scenario needs: one worker, kept connections to the upstream, and
whatever of its own settings its manual recommends for speed.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess

CONNECTIONS_KEPT = 256
# As they stand in tables.
ORDER = ("bare", "tollgate", "nginx", "nginx-lua", "haproxy", "envoy", "caddy", "varnish")


@dataclasses.dataclass(frozen=True)
class Setup:
    """How a peer is configured. Scenarios of one setup share one process of each peer."""

    kind: str  # proxy, logged, cache, chain, routes or flood
    routes: int = 0
    algorithm: str = ""
    remembered: int = 10_000  # verified tokens, where a peer can remember them

    def __str__(self):
        parts = [self.kind, *([str(self.routes)] if self.routes else []), self.algorithm.lower(),
                 *([] if self.remembered else ["uncached"])]
        return "-".join(filter(None, parts))


@dataclasses.dataclass(frozen=True)
class Site:
    """What stands around a peer."""

    lab: object
    origin: str  # address of the upstream
    echo: str  # address of the upstream that echoes WebSocket frames and gRPC calls
    cert: pathlib.Path
    key: pathlib.Path
    chains: dict  # the tokens and keys of each algorithm

    def file(self, name, text):
        """Writes a file into the directory of the test."""
        path = self.lab.dir / name
        path.write_text(text)
        return path


@dataclasses.dataclass(frozen=True)
class Running:
    """A peer that runs, and where it takes what; an address is empty where it does not."""

    server: object
    http: str
    https: str = ""
    grpc: str = ""
    websocket: str = ""
    log: pathlib.Path = None
    metrics: str = ""  # a URL


class Peer:
    """A program that can take part."""

    name = ""
    package = ""  # how to get it
    kinds = frozenset()  # of setup
    version_arguments = ("--version",)
    version_pattern = r"(\d+\.\d+[^\s,]*)"

    def __init__(self, program):
        self.program = str(program)

    def missing(self):
        """Why it cannot take part; None if it can."""
        return None if shutil.which(self.program) else f"not installed: {self.package}"

    def version(self):
        done = subprocess.run([self.program, *self.version_arguments], capture_output=True, text=True)
        found = re.search(self.version_pattern, done.stdout + done.stderr)
        return found[1] if found else "unknown"

    def takes(self, setup):
        """Whether it can be set up so."""
        return setup.kind in self.kinds

    def key(self, setup):
        """Setups with the same key are served by one process."""
        return setup

    def start(self, site, setup):
        """Starts it on the proxy's core; gives back a `Running`."""
        raise NotImplementedError


def all_peers(options):
    """Every peer, the references first."""
    from peers import bare, caddy, envoy, haproxy, nginx, nginx_lua, tollgate, varnish
    return [bare.Bare(options.bare), tollgate.Tollgate(options.tollgate), nginx.Nginx("nginx"), nginx_lua.NginxLua("nginx"),
            haproxy.HAProxy("haproxy"), envoy.Envoy(envoy.program(options.envoy)), caddy.Caddy("caddy"),
            varnish.Varnish("varnishd")]


def prefixes(count):
    """The first segments of the routes of a large table."""
    return [f"r{number}" for number in range(count)]
