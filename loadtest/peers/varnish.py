"""Varnish: a cache in memory and nothing else; its threads share the proxy's core."""

import servers
from peers import Peer, Running


class Varnish(Peer):
    name = "varnish"
    package = "apt-get install varnish"
    kinds = frozenset(("cache",))
    version_arguments = ("-V",)
    version_pattern = r"varnish-(\S+)"

    def start(self, site, setup):
        http = servers.free_address()
        return Running(site.lab.varnish(site.origin, http, core=0), http)
