//! Built-in defaults, where a configuration says nothing.

use super::super::yaml::{Entry, Kind, Node, Scalar};
use super::built_in_entry;

/// Paths and values; `*` stands for every name. What a shorter path sets comes before what a longer one adds to.
pub(in crate::config) const BUILT_IN: &[(&str, &str)] = &[
    ("process.threads", "auto"),
    ("process.drain.requests", "30s"),
    ("admin.bind", "unix:/run/tollgate/admin.sock"),
    ("telemetry.access_log.to", "stdout"),
    ("telemetry.access_log.sample", "100%"),
    ("telemetry.metrics.max_series", "20000"),
    ("telemetry.request_id.header", "x-request-id"),
    ("telemetry.request_id.trust_from", "trusted_proxies"),
    ("listeners.*.normalize", "strict"),
    ("listeners.*.limits.header_bytes", "32KiB"),
    ("listeners.*.limits.headers", "100"),
    ("listeners.*.limits.uri", "8KiB"),
    ("listeners.*.limits.header_timeout", "10s"),
    ("listeners.*.limits.body_idle", "30s"),
    ("listeners.*.limits.body_rate", "240B"),
    ("listeners.*.limits.send_idle", "60s"),
    ("listeners.*.limits.keepalive", "75s"),
    ("listeners.*.limits.connections", "100000"),
    ("listeners.*.limits.per_ip", "20000"),
    ("listeners.*.limits.h2_streams", "100"),
    ("listeners.*.limits.h2_window", "1MiB"),
    ("listeners.*.limits.h2_requests", "100000"),
    ("listeners.*.limits.h2_resets", "1000/10s"),
    ("listeners.*.limits.h2_frames", "10000/10s"),
    ("listeners.*.limits.handshake_timeout", "10s"),
    ("cache.memory", "256MiB"),
    ("upstreams.*.protocol", "auto"),
    ("upstreams.*.balance", "round_robin"),
    ("upstreams.*.host", "client"),
    ("upstreams.*.health", "tcp"),
    ("upstreams.*.health.every", "5s"),
    ("upstreams.*.health.timeout", "1s"),
    ("upstreams.*.health.up", "2"),
    ("upstreams.*.health.down", "3"),
    ("upstreams.*.discovery.refresh", "ttl"),
    ("upstreams.*.discovery.min", "1s"),
    ("upstreams.*.discovery.max", "60s"),
    ("upstreams.*.pool.idle", "60s"),
    ("upstreams.*.backup_below", "0%"),
    ("upstreams.*.slow_start", "0s"),
    ("apis.*.routes.*.timeouts.connect", "1s"),
    ("apis.*.routes.*.timeouts.response", "30s"),
    ("apis.*.routes.*.timeouts.idle", "60s"),
    ("apis.*.routes.*.timeouts.stream_idle", "10m"),
    ("apis.*.routes.*.retry.attempts", "2"),
    ("apis.*.routes.*.retry.methods", "idempotent"),
    ("apis.*.routes.*.retry.budget", "20%"),
    ("apis.*.routes.*.retry.backoff.base", "25ms"),
    ("apis.*.routes.*.retry.backoff.max", "250ms"),
    ("apis.*.routes.*.retry.body", "64KiB"),
    ("apis.*.routes.*.body.max", "10MiB"),
    ("apis.*.routes.*.cache.respect_origin", "true"),
    ("apis.*.routes.*.cache.set_cookie", "refuse"),
    ("apis.*.routes.*.cache.max_object", "1MiB"),
    ("apis.*.routes.*.cache.wait", "5s"),
    ("apis.*.routes.*.cache.client_directives", "obey"),
    ("apis.*.routes.*.request.forwarded", "x-forwarded"),
];

/// Adds the defaults that a tree of resolved routes does not mention.
pub(super) fn complete(tree: &mut Node) {
    for (path, value) in BUILT_IN {
        add(tree, path, value, path.starts_with(WHERE_WRITTEN));
    }
}

/// What an empty map would turn on: only where it is written it has defaults.
const WHERE_WRITTEN: &str = "apis.*.routes.*.cache.";

fn add(node: &mut Node, path: &str, value: &str, where_written: bool) {
    // Anything but a map is a word of its own, such as `none`, that leaves no room for details.
    let Kind::Map(entries) = &mut node.kind else { return };
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    match rest {
        Some(rest) if key == "*" => {
            entries.iter_mut().for_each(|entry| add(&mut entry.value, rest, value, where_written));
        }
        Some(rest) => {
            if let Some(value_of_key) = present(entries, key, where_written || is_map_of_names(key)) {
                add(value_of_key, rest, value, where_written);
            }
        }
        None if entries.iter().any(|entry| entry.key.value == key) => {}
        None => entries.push(built_in_entry(key, Kind::Scalar(word(value)))),
    }
}

/// Whether nothing can be added where nothing is defined.
fn is_map_of_names(key: &str) -> bool {
    matches!(key, "listeners" | "upstreams" | "apis" | "routes")
}

/// The value of a key, made as an empty map if need be.
fn present<'a>(entries: &'a mut Vec<Entry>, key: &str, only_existing: bool) -> Option<&'a mut Node> {
    let known = entries.iter().position(|entry| entry.key.value == key);
    let number = match known {
        Some(number) => number,
        None if only_existing => return None,
        None => {
            entries.push(built_in_entry(key, Kind::Map(Vec::new())));
            entries.len() - 1
        }
    };
    entries.get_mut(number).map(|entry| &mut entry.value)
}

fn word(text: &str) -> Scalar {
    let truth = text.parse::<bool>().map(serde_yaml::Value::from);
    let value = text.parse::<u32>().map(serde_yaml::Value::from).or(truth).unwrap_or_else(|_| text.into());
    Scalar { value, plain: true, secret: false, written: None }
}
