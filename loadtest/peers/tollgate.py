"""tollgate: one listener for each protocol, routes by path, metrics always on."""

import servers
from peers import Peer, Running, prefixes

# Of the shape of a large REST API.
SHAPES = ("/{}/items/{{id}}", "/{}/items/{{id}}/parts/{{part}}", "/{}/**", "/{}/items/{{id}}")


class Tollgate(Peer):
    name = "tollgate"
    package = "cargo build --release --bins"
    kinds = frozenset(("proxy", "logged", "cache", "chain", "routes", "flood"))

    def start(self, site, setup):
        name, http = f"tollgate-{setup}", servers.free_address()
        log = site.lab.dir / f"{name}-access.log"
        if setup.kind == "proxy":
            return self.proxy(site, name, http)
        if setup.kind == "chain":
            document = site.chains[setup.algorithm].config(http, site.origin, log, cache=setup.remembered)
        else:
            document = servers.config(http, site.origin, **variant(setup, log))
        admin = servers.free_address()
        document["admin"] = {"bind": admin}
        server = site.lab.tollgate(self.program, document, http, name=name, core=0)
        return Running(server, http, log=log, metrics=f"http://{admin}/metrics")

    def proxy(self, site, name, http):
        https, grpc = servers.free_address(), servers.free_address()
        document = servers.config(http, site.origin, routes={
            "all": {"match": "/**", "to": "app"},
            "frames": {"match": "/ws", "to": "frames"},
            "calls": {"match": "POST /echo.Echo/{method}", "to": "calls"}})
        document["listeners"].update(
            tls={"bind": https, "tls": {"cert": str(site.cert), "key": str(site.key)}},
            grpc={"bind": grpc, "protocols": ["http/1.1", "h2c"]})
        for listener in document["listeners"].values():
            listener["limits"] = {"keepalive": "10m"}
        document["upstreams"].update(
            frames={"targets": [site.echo], "health": {"probe": "none"}},
            calls={"targets": [site.echo], "protocol": "grpc", "health": {"probe": "none"}})
        server = site.lab.tollgate(self.program, document, http, name=name, core=0)
        return Running(server, http, https, grpc, websocket=http)


def variant(setup, log):
    """What differs from the plain configuration."""
    return {
        "logged": {"log": log},
        "cache": {"cache": {"ttl": "1h"}},
        "flood": {"flood": "1/m"},
        "routes": {"routes": many(setup.routes)},
    }[setup.kind]


def many(count):
    """A route for each prefix."""
    names = prefixes(count)
    return {name: {"match": f"GET {SHAPES[number % len(SHAPES)].format(name)}", "to": "app"}
            for number, name in enumerate(names)}
