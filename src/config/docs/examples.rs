//! An example for each part of a configuration, checked by a test.

/// The example that belongs under a heading.
pub(super) fn of(path: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(known, _)| *known == path).map(|(_, example)| *example)
}

const EXAMPLES: &[(&str, &str)] = &[
    (
        "include",
        "\
include: [conf.d/*.yaml]
",
    ),
    (
        "process",
        "\
process:
  threads: auto
  user: tollgate
  drain: { requests: 30s }
",
    ),
    (
        "admin",
        "\
admin:
  bind: 127.0.0.1:9900
  tokens:
    ops: a-secret-of-16-or-more # better: \"${cred:admin_token}\"
",
    ),
    (
        "telemetry",
        "\
telemetry:
  access_log:
    to: /var/log/tollgate/access.log
    sample: 10%
    fields: { add: { tenant: \"${header.x-tenant}\" } }
  redact:
    headers: [x-session]
    query: [signature]
  request_id: { header: x-request-id, trust_from: trusted_proxies }
",
    ),
    (
        "listeners",
        "\
listeners:
  web:
    bind: [0.0.0.0:8080, \"[::]:8081\"]
    protocols: [http/1.1, h2c]
    trusted_proxies: [10.0.0.0/8]
    limits: { header_bytes: 16KiB, uri: 4KiB }
  secure:
    bind: 0.0.0.0:8443
    protocols: [h2, http/1.1]
    tls:
      certs:
        - { cert: /etc/tollgate/tls/shop.pem, key: /etc/tollgate/tls/shop.key }
        - { cert: /etc/tollgate/tls/api.pem, key: /etc/tollgate/tls/api.key }
      min: \"1.2\"
      client_cert: { mode: optional, ca: /etc/tollgate/tls/clients.pem }
    proxy_protocol: { from: 10.0.0.0/8 }
  plain: { bind: 0.0.0.0:8082, redirect_https: 308 to 8443 }
",
    ),
    (
        "defaults",
        "\
defaults:
  auth: public
  timeouts: { connect: 500ms, response: 10s }
  body: { max: 1MiB }
  request:
    headers:
      remove: [x-debug]
      set: { x-edge: tollgate }
  response:
    headers: { remove: [server] }
",
    ),
    (
        "upstreams",
        "\
upstreams:
  orders:
    targets: [10.0.0.7:3000, { addr: orders.internal:3000, weight: 2 }]
    balance: least_conn
    health: GET /healthz
  users:
    targets: [users.internal:8443]
    tls: { ca: /etc/tollgate/ca.pem }
    balance: { hash: \"header:x-user\" }
    health: { probe: GET /healthz, every: 2s, down: 2 }
",
    ),
    (
        "apis",
        "\
apis:
  shop:
    hosts: [api.example.com, \"*.shop.example\"]
    base: /shop
    auth: public
    to: orders
    routes:
      read: { match: \"GET /orders/{id}\" }
      create:
        match: { methods: [POST], path: /orders, headers: { content-type: application/json } }
        body: { max: 64KiB }
      canary:
        match: /beta/**
        to: { split: { orders: 90%, orders-next: 10% }, sticky: \"cookie:sid\" }
      ping:
        match: GET /ping
        to: { respond: { text: pong } }
      old:
        match: \"/old/{rest...}\"
        to: { redirect: \"308 /shop/${path.rest}\" }
",
    ),
    (
        "apis.NAME.versions",
        "\
apis:
  shop:
    auth: public
    versions:
      by: { path: \"v{n}\" }
      v1: { to: orders }
      v2: { to: orders-next, default: true }
    routes:
      read: { match: \"GET /orders/{id}\" }
",
    ),
];
