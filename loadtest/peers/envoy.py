"""Envoy: one worker, no hot restart, circuit breakers out of the way. Its limit is one for the route, not for each consumer."""

import json
import os
import pathlib
import shutil

import chain
import servers
from peers import Peer, Running, prefixes

TYPE = "type.googleapis.com/envoy.extensions.{}"
# Where `loadtest/install-peers` puts it.
BUNDLED = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", servers.ROOT / "target")) / "loadtest" / "envoy"
MANY = 1_000_000


def program(given):
    """What was asked for, else the one on the path, else the one of the wheel."""
    if given or shutil.which("envoy"):
        return given or "envoy"
    return next(iter(BUNDLED.glob("lib/python*/site-packages/envoy/_bin/envoy")), "envoy")


class Envoy(Peer):
    name = "envoy"
    package = "loadtest/install-peers"
    kinds = frozenset(("proxy", "logged", "cache", "chain", "routes"))
    version_pattern = r"/(\d+\.\d+\.\d+)[-/]"

    def start(self, site, setup):
        name = f"envoy-{setup}"
        http, https, grpc, websocket, admin = (servers.free_address() for _ in range(5))
        log = site.lab.dir / f"{name}-access.log"
        access_log = json_log(log) if setup.kind in ("logged", "chain") else []
        listeners = [listener("web", http, routes(site, setup), filters(site, setup), access_log)]
        if setup.kind == "proxy":
            listeners += [listener("secure", https, [to("app")], [], tls=tls(site)),
                          listener("grpc", grpc, [to("calls")], []),
                          listener("websocket", websocket, [to("frames")], [])]
        file = site.file(f"{name}.json", json.dumps({
            "admin": {"address": socket_address(admin)},
            "static_resources": {"listeners": listeners, "clusters": [
                cluster("app", site.origin), cluster("frames", site.echo), cluster("calls", site.echo, http2=True)]}}))
        command = [self.program, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        server = site.lab.start(name, http, command, core=0)
        if setup.kind != "proxy":
            return Running(server, http, log=log, metrics=f"http://{admin}/stats/prometheus")
        return Running(server, http, https, grpc, websocket)


def socket_address(address):
    host, port = servers.endpoint(address)
    return {"socket_address": {"address": host, "port_value": port}}


def typed(kind, **fields):
    return {"@type": TYPE.format(kind), **fields}


def listener(name, address, routes, filters, access_log=(), tls=None):
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix=name, codec_type="AUTO",
        access_log=list(access_log), upgrade_configs=[{"upgrade_type": "websocket"}], generate_request_id=False,
        stream_idle_timeout="0s", server_header_transformation="PASS_THROUGH",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[*filters, {"name": "router", "typed_config": typed("filters.http.router.v3.Router")}])
    chain_of_filters = {"filters": [{"name": "http", "typed_config": manager}], **({"transport_socket": tls} if tls else {})}
    return {"name": name, "address": socket_address(address), "filter_chains": [chain_of_filters],
            "tcp_backlog_size": 4096, "enable_reuse_port": False}


def cluster(name, address, http2=False):
    version = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    options = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config=version)
    return {
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket_address(address)}}]}]}}


def to(cluster, prefix="/", **more):
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster, "timeout": "0s"}, **more}


def routes(site, setup):
    if setup.kind == "routes":  # tried one after the other; anything else is answered with 404
        return [to("app", f"/{prefix}/") for prefix in prefixes(setup.routes)]
    if setup.kind != "chain":
        return [to("app")]
    changes = {"request_headers_to_add": [added("x-edge")], "request_headers_to_remove": ["x-debug"],
               "response_headers_to_add": [added("x-served")], "response_headers_to_remove": ["server"]}
    few = {"envoy.filters.http.local_ratelimit": limit(chain.FEW, "60s")}
    return [to("app", "/limited", typed_per_filter_config=few), to("app", **changes)]


def added(name):
    return {"header": {"key": name, "value": "edge"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def filters(site, setup):
    if setup.kind == "cache":
        kept = {"typed_config": typed("http.cache.simple_http_cache.v3.SimpleHttpCacheConfig")}["typed_config"]
        return [{"name": "cache", "typed_config": typed("filters.http.cache.v3.CacheConfig", typed_config=kept)}]
    if setup.kind != "chain":
        return []
    return [{"name": "jwt", "typed_config": verified(site.chains[setup.algorithm])},
            {"name": "envoy.filters.http.local_ratelimit", "typed_config": limit(MANY, "1s")}]


def limit(count, interval):
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return typed("filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="limit",
                 token_bucket={"max_tokens": count, "tokens_per_fill": count, "fill_interval": interval},
                 filter_enabled=always, filter_enforced=always)


def verified(tokens):
    provider = {"issuer": chain.ISSUER, "audiences": [chain.AUDIENCE], "local_jwks": {"inline_string": json.dumps(tokens.jwks())},
                "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}], "payload_in_metadata": "claims"}
    return typed("filters.http.jwt_authn.v3.JwtAuthentication", providers={"users": provider},
                 rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "users"}}])


def json_log(log):
    form = {"ts": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "method": "%REQ(:METHOD)%",
            "path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "ms": "%DURATION%",
            "consumer": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%", "upstream": "%UPSTREAM_HOST%"}
    return [{"name": "file", "typed_config": typed("access_loggers.file.v3.FileAccessLog", path=str(log),
                                                   log_format={"json_format": form})}]


def tls(site):
    certificate = {"certificate_chain": {"filename": str(site.cert)}, "private_key": {"filename": str(site.key)}}
    context = typed("transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context={
        "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}})
    return {"name": "tls", "typed_config": context}
