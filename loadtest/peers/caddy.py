"""Caddy: one processor for the Go runtime, nothing automatic."""

import json

import servers
from peers import CONNECTIONS_KEPT, Peer, Running, prefixes


class Caddy(Peer):
    name = "caddy"
    package = "apt-get install caddy"
    kinds = frozenset(("proxy", "routes"))
    version_arguments = ("version",)

    def start(self, site, setup):
        name = f"caddy-{setup}"
        http, https, grpc, websocket = (servers.free_address() for _ in range(4))
        to_origin = proxied(site.origin)
        listeners = {"web": server(http, many(to_origin, setup.routes) if setup.routes else [{"handle": to_origin}])}
        if setup.kind == "proxy":
            listeners.update(
                secure=server(https, [{"handle": to_origin}], tls_connection_policies=[{"protocol_min": "tls1.3"}]),
                grpc=server(grpc, [{"handle": proxied(site.echo, ["h2c"])}], protocols=["h1", "h2", "h2c"]),
                websocket=server(websocket, [{"handle": proxied(site.echo)}]))
        file = site.file(f"{name}.json", json.dumps({
            "admin": {"disabled": True},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "apps": {"http": {"servers": listeners},
                     "tls": {"certificates": {"load_files": [{"certificate": str(site.cert), "key": str(site.key)}]}}}}))
        home = site.lab.dir / f"{name}-home"
        command = ["env", "GOMAXPROCS=1", f"HOME={home}", f"XDG_DATA_HOME={home}", f"XDG_CONFIG_HOME={home}",
                   self.program, "run", "--config", file]
        process = site.lab.start(name, http, command, core=0)
        return Running(process, http, https, grpc, websocket) if setup.kind == "proxy" else Running(process, http)


def server(address, routes, **more):
    return {"listen": [address], "routes": routes, "automatic_https": {"disable": True}, **more}


def proxied(address, versions=("1.1",)):
    transport = {"protocol": "http", "versions": list(versions), "compression": False,
                 "keep_alive": {"max_idle_conns_per_host": CONNECTIONS_KEPT, "idle_timeout": "60s"}}
    return [{"handler": "reverse_proxy", "upstreams": [{"dial": address}], "transport": transport}]


def many(handle, count):
    """A route for each prefix; Caddy tries them one after the other."""
    routes = [{"match": [{"path": [f"/{prefix}/*"]}], "handle": handle, "terminal": True} for prefix in prefixes(count)]
    return [*routes, {"handle": [{"handler": "static_response", "status_code": 404}]}]
