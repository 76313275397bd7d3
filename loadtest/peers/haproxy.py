"""HAProxy: one thread, connections to the upstream reused always, its own small-object cache, tokens verified for each request."""

import chain
import servers
from peers import Peer, Running, prefixes

BASE = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 1m
  timeout tunnel 1h
  timeout http-keep-alive 10m
  http-reuse always
backend app
  server origin {origin}
"""
PROXY = """
frontend web
  bind {http} backlog 4096
  bind {https} ssl crt {pem} alpn h2,http/1.1 ssl-min-ver TLSv1.3 backlog 4096
  default_backend app
frontend grpc
  bind {grpc} proto h2
  default_backend calls
frontend websocket
  bind {websocket}
  default_backend frames
backend calls
  server echo {echo} proto h2
backend frames
  server echo {echo}
"""
LOG = ('{{"ts":"%tr","client":"%ci","method":"%HM","path":"%HP","status":%ST,"bytes":%B,"ms":%Ta,"consumer":"%[var(txn.sub)]",'
       '"upstream":"%s"}}')
LOGGED = """
frontend web
  bind {http} backlog 4096
  log stdout format raw local0
  log-format '""" + LOG + """'
  default_backend app
"""
CACHE = """
cache hits
  total-max-size 64
  max-object-size 200000
  max-age 3600
frontend web
  bind {http} backlog 4096
  http-request cache-use hits
  http-response cache-store hits
  default_backend app
"""
ROUTES = """
frontend web
  bind {http} backlog 4096
  http-request return status 404 unless {{ path,map_beg({map}) -m found }}
  use_backend %[path,map_beg({map})]
"""
CHAIN = """
frontend web
  bind {http} backlog 4096
  log stdout format raw local0
  log-format '""" + LOG + """'
  stick-table type string len 32 size 100k expire 2m store http_req_rate(1s),gpc0_rate(60s)
  http-request set-var(txn.token) http_auth_bearer
  http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify(txn.alg,"{verified_by}") -m int 1 }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {issuer} }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {audience} }}
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now) -m int gt 0 }}
  http-request set-var(txn.sub) var(txn.token),jwt_payload_query('$.sub')
  http-request track-sc0 var(txn.sub)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
  http-request sc-inc-gpc0(0) if {{ path /limited }}
  http-request deny deny_status 429 if {{ path /limited }} {{ sc0_gpc0_rate gt {few} }}
  http-request set-header x-user %[var(txn.sub)]
  http-request set-header x-edge edge
  http-request del-header x-debug
  http-response set-header x-served edge
  http-response del-header server
  default_backend app
frontend metrics
  bind {metrics}
  http-request use-service prometheus-exporter
"""


class HAProxy(Peer):
    name = "haproxy"
    package = "apt-get install haproxy"
    kinds = frozenset(("proxy", "logged", "cache", "chain", "routes"))
    version_arguments = ("-v",)

    def start(self, site, setup):
        name = f"haproxy-{setup}"
        http, https, grpc, websocket, metrics = (servers.free_address() for _ in range(5))
        pem = site.file("haproxy.pem", site.cert.read_text() + site.key.read_text())
        entries = "".join(f"/{prefix}/ app\n" for prefix in prefixes(setup.routes))
        text = {"proxy": PROXY, "logged": LOGGED, "cache": CACHE, "routes": ROUTES, "chain": CHAIN}[setup.kind]
        config = (BASE + text).format(
            origin=site.origin, echo=site.echo, pem=pem, http=http, https=https, grpc=grpc, websocket=websocket,
            map=site.file(f"{name}.map", entries), algorithm=setup.algorithm, metrics=metrics, few=chain.FEW,
            issuer=chain.ISSUER, audience=chain.AUDIENCE, verified_by=verified_by(site, setup))
        file = site.file(f"{name}.cfg", config)
        server = site.lab.start(name, http, [self.program, "-db", "-f", file], core=0)
        log = site.lab.dir / f"{name}.log"
        if setup.kind != "proxy":
            return Running(server, http, log=log, metrics=f"http://{metrics}/metrics" if setup.kind == "chain" else "")
        return Running(server, http, https, grpc, websocket)


def verified_by(site, setup):
    """The secret, or the file of the public key."""
    if not setup.algorithm:
        return ""
    return chain.SECRET if setup.algorithm == "HS256" else site.chains[setup.algorithm].public
