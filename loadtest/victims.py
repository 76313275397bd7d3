"""The gateways that are abused, each with one worker on core 0: tollgate as it is by default, and what others have that is like it.

Answers for good clients (`/good`) come from an upstream of their own, so that it is the gateway that they share with abusers.
"""

import resource
import urllib.request

import servers

CORE = 0
LIFTED = 1_000_000
NGINX = """
limit_conn_zone $binary_remote_addr zone=clients:10m;
client_header_timeout 10s; client_body_timeout 30s; send_timeout 60s;
large_client_header_buffers 4 8k; http2_max_concurrent_streams 100;
upstream app {{ server {app}; keepalive 64; }}
upstream good {{ server {good}; keepalive 64; }}
server {{
  listen {http1} backlog=4096; listen {http2} http2 backlog=4096; {cap}
  keepalive_timeout 75s; keepalive_requests 100000;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;
  location / {{ proxy_pass http://app; }}
  location = /good {{ proxy_pass http://good; }}
}}"""
HAPROXY = """
global
  nbthread 1
  maxconn {most}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 75s
  http-reuse always
frontend web
  bind {http1} backlog 4096
  {cap}
  use_backend good if {{ path /good }}
  default_backend app
backend app
  server app {app}
backend good
  server good {good}
"""
HAPROXY_CAP = """stick-table type ip size 100k expire 1m store conn_cur
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_cur gt %d }"""


class Victim:
    """A gateway that runs; HTTP/1.1 and HTTP/2 may be at different addresses."""

    def __init__(self, server, http1, http2):
        self.server, self.http1, self.http2 = server, http1, http2

    def refused(self):
        """Connections that were turned away, as far as it tells."""
        return 0

    def still_open(self):
        """Connections of clients, by the kernel's table."""
        ports = {f"{servers.endpoint(address)[1]:04X}" for address in (self.http1, self.http2)}
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        return sum(row[3] == "01" and row[1].rpartition(":")[2] in ports for row in rows[1:])

    def memory(self):
        """MiB."""
        return self.server.rss_kib() / 1024

    def is_running(self):
        return self.server.process.poll() is None

    def stop(self):
        servers.stop(self.server.process)


class Tollgate(Victim):
    def __init__(self, lab, binary, app, good, number, lifted):
        address, self.admin = servers.free_address(), servers.free_address()
        document = servers.config(address, app, routes={
            "all": {"match": "/**", "to": "app"}, "good": {"match": "/good", "to": "good"}})
        document["upstreams"]["good"] = {"targets": [good], "health": {"probe": "none"}}
        document["admin"] = {"bind": self.admin}
        web = document["listeners"]["web"]
        web["protocols"] = ["http/1.1", "h2c"]
        web["limits"] = {"per_ip": LIFTED, "connections": LIFTED} if lifted else {}
        super().__init__(lab.tollgate(binary, document, address, name=f"tollgate-{number}", core=CORE), address, address)

    def refused(self):
        return self.metric("tollgate_refused_connections_total")

    def metric(self, name):
        """The sum of a metric's series."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Nginx(Victim):
    def __init__(self, lab, _, app, good, number, lifted):
        http1, http2 = servers.free_address(), servers.free_address()
        cap = "" if lifted else f"limit_conn clients {per_ip()};"
        http = NGINX.format(app=app, good=good, http1=http1, http2=http2, cap=cap)
        super().__init__(lab.nginx(f"victim-{number}", http, http1, CORE), http1, http2)


class HAProxy(Victim):
    def __init__(self, lab, _, app, good, number, lifted):
        address, file = servers.free_address(), lab.dir / f"victim-{number}.cfg"
        # Each connection may need a file at both ends.
        most = files() // 2 - 200
        cap = "" if lifted else HAPROXY_CAP % min(per_ip(), most * 3 // 4)
        file.write_text(HAPROXY.format(app=app, good=good, http1=address, most=most, cap=cap))
        super().__init__(lab.start(f"victim-{number}", address, ["haproxy", "-db", "-f", file], CORE), address, address)


def files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def per_ip():
    """Three quarters of what there are files for: what `limits.per_ip` is at most."""
    return files() * 3 // 4


GATEWAYS = {"tollgate": Tollgate, "nginx": Nginx, "haproxy": HAProxy}
