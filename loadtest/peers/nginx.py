"""nginx: one worker, no access log unless asked for, cache on disk with files left to the page cache."""

import servers
from peers import CONNECTIONS_KEPT, Peer, Running, prefixes

PASS = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;'
UPSTREAMS = """
upstream app {{ server {origin}; keepalive {kept}; keepalive_requests 1000000000; }}
upstream frames {{ server {echo}; keepalive {kept}; }}
upstream calls {{ server {echo}; keepalive {kept}; keepalive_requests 1000000000; }}
ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
"""
PROXY = """
server {{ listen {http} backlog=4096; location / {{ {go} }} }}
server {{ listen {https} ssl http2 backlog=4096; location / {{ {go} }} }}
server {{ listen {grpc} http2; location / {{ grpc_pass grpc://calls; }} }}
server {{ listen {websocket}; location / {{ proxy_pass http://frames; proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 1h; }} }}
"""
LOGGED = """
log_format json escape=json '{{"ts":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method",'
  '"path":"$uri","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"upstream":"$upstream_addr"}}';
server {{ listen {http} backlog=4096; access_log {log} json buffer=64k flush=1s; location / {{ {go} }} }}
"""
CACHE = """
proxy_cache_path {dir}/nginx-cache-files levels=1:2 keys_zone=hits:16m max_size=256m use_temp_path=off;
server {{ listen {http} backlog=4096; tcp_nopush off; location / {{ {go} proxy_cache hits; proxy_cache_valid 200 1h; }} }}
"""
ROUTES = """
server {{ listen {http} backlog=4096; location / {{ return 404; }}
{locations} }}
"""


class Nginx(Peer):
    name = "nginx"
    package = "apt-get install nginx-light"
    kinds = frozenset(("proxy", "logged", "cache", "routes"))
    version_arguments = ("-v",)

    def start(self, site, setup):
        name = f"nginx-{setup}"
        http, https, grpc, websocket = (servers.free_address() for _ in range(4))
        text = {"proxy": PROXY, "logged": LOGGED, "cache": CACHE, "routes": ROUTES}[setup.kind]
        locations = "\n".join(f"location /{prefix}/ {{ {PASS} }}" for prefix in prefixes(setup.routes))
        log = site.lab.dir / f"{name}-access.log"
        block = (UPSTREAMS + text).format(
            origin=site.origin, echo=site.echo, kept=CONNECTIONS_KEPT, cert=site.cert, key=site.key, dir=site.lab.dir, go=PASS,
            http=http, https=https, grpc=grpc, websocket=websocket, locations=locations, log=log)
        server = site.lab.nginx(name, block, http, core=0)
        if setup.kind != "proxy":
            return Running(server, http, log=log)
        return Running(server, http, https, grpc, websocket)
