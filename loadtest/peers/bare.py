"""The reference: the engine without anything, and so without a router, tokens or a log. It stands for scale in every scenario."""

import servers
from peers import Peer, Running


class Bare(Peer):
    name = "bare"
    package = "cargo build --release --examples"
    kinds = frozenset(("proxy", "logged", "cache", "chain", "routes", "flood"))

    def version(self):
        return "Pingora 0.9.1, no filter"

    def key(self, setup):
        """One process does it all; only what is cached is asked for elsewhere."""
        return "cache" if setup.kind == "cache" else "proxy"

    def start(self, site, setup):
        http, https, grpc, websocket = (servers.free_address() for _ in range(4))
        name = f"bare-{self.key(setup)}"
        if setup.kind == "cache":
            command = [self.program, servers.free_address(), site.origin, "cache", http, site.origin]
            return Running(site.lab.start(name, http, command, core=0), http)
        command = [self.program, http, site.origin, "tls", https, site.origin, site.cert, site.key,
                   "grpc", grpc, site.echo, "http", websocket, site.echo]
        return Running(site.lab.start(name, http, command, core=0), http, https, grpc, websocket)
