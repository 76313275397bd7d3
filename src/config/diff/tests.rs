//! Differences of many kinds.

use super::*;
use crate::config::{load, yaml};
use crate::value::{Issues, Sources};
use proptest::prelude::*;
use std::path::Path;

const BASE: &str = r#"
version: 1
process: { drain: { requests: 30s } }
admin: { bind: "127.0.0.1:9900", tokens: { ops: a-token-that-nobody-sees } }
telemetry: { redact: { headers: [x-a, x-b] }, access_log: { sample: 10% } }
listeners:
  web: { bind: "127.0.0.1:8080", limits: { keepalive: 60s, flood: 100/s } }
  other: { bind: ["127.0.0.1:8081", "127.0.0.1:8082"] }
auth:
  keys: { api_key: { header: x-key } }
  sso: { jwt: { issuer: "https://a.example", audience: shop, secret: "0123456789abcdef0123456789abcdef" } }
plans: { free: { limits: 5/s per consumer } }
consumers:
  alice: { plan: free, ids: [a, b], keys: "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
defaults: { auth: public, timeouts: { response: 30s } }
upstreams:
  app: { targets: ["127.0.0.1:3000", "127.0.0.1:3001"], health: GET /healthz }
  two: { targets: ["127.0.0.1:4000"] }
apis:
  shop:
    hosts: shop.example
    base: /shop
    routes:
      read: { match: "GET /orders/{id}", to: app }
      write: { match: { methods: [PUT, POST], path: /orders, headers: { x-y: present } }, to: app, auth: keys, limits: [20/s per consumer, 1000/h per client_ip] }
      own: { match: /own, to: { respond: { json: { list: [1, "1", null] } } }, request: { headers: { set: { x-edge: a } } } }
"#;

fn read(base: &Path, text: &str) -> Loaded {
    let path = base.join("tollgate.yaml");
    std::fs::write(&path, text).unwrap();
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let loaded = load(&path, &mut sources, &mut issues);
    assert_eq!(issues.0, [], "{text}");
    loaded.unwrap()
}

fn between_texts(old: &str, new: &str) -> Difference {
    let base = tempfile::tempdir().unwrap();
    for (name, value) in [("one", "s3cret-number-one"), ("two", "s3cret-number-two")] {
        std::fs::write(base.path().join(name), value).unwrap();
    }
    diff(&read(base.path(), old), &read(base.path(), new))
}

/// The base with one part replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from}");
    BASE.replace(from, to)
}

fn changed(from: &str, to: &str) -> String {
    between_texts(BASE, &with(from, to)).to_string()
}

/// A part of the base, and other words for the same.
const SAME: &[(&str, &str)] = &[
    ("keepalive: 60s", "keepalive: 1m"),
    ("sample: 10%", "sample: 10.00%"),
    ("requests: 30s", "requests: 30000ms"),
    ("process: { drain: { requests: 30s } }", "process: {}"),
    ("process: { drain: { requests: 30s } }", "process: { threads: auto }"),
    ("headers: [x-a, x-b]", "headers: [X-B, x-a]"),
    ("bind: \"127.0.0.1:8080\"", "bind: [\"127.0.0.1:8080\"]"),
    ("[\"127.0.0.1:8081\", \"127.0.0.1:8082\"]", "[\"127.0.0.1:8082\", \"127.0.0.1:8081\"]"),
    ("flood: 100/s }", "flood: 100 / sec, headers: 100 }, trusted_proxies: [], normalize: strict"),
    ("audience: shop", "audience: [shop]"),
    ("limits: 5/s per consumer", "limits: { rate: 5/s, per: consumer, cost: 1 }"),
    ("limits: 5/s per consumer", "limits: [5/second per consumer]"),
    ("ids: [a, b]", "ids: [b, a], tags: []"),
    (
        "health: GET /healthz",
        "health: { probe: GET /healthz, every: 5s, down: 3 }, tls: false, pool: { idle: 1m }",
    ),
    ("targets: [\"127.0.0.1:4000\"]", "targets: [{ addr: \"127.0.0.1:4000\", weight: 1 }], health: tcp"),
    ("[\"127.0.0.1:3000\", \"127.0.0.1:3001\"]", "[\"127.0.0.1:3001\", \"127.0.0.1:3000\"]"),
    ("hosts: shop.example", "hosts: [shop.example]\n    maintenance: false"),
    (
        "match: \"GET /orders/{id}\", to: app",
        "match: { methods: [GET], path: \"/orders/{id}\" }, to: { upstream: app }",
    ),
    ("methods: [PUT, POST]", "methods: [POST, PUT]"),
    ("auth: keys", "auth: [keys]"),
    ("auth: keys", "auth: { any: keys }"),
    ("match: /own", "match: { path: /own, headers: {} }, priority: 0, body: null"),
    ("set: { x-edge: a }", "set: { X-Edge: \"a\" }"),
    ("\"1\", null]", "'1', ~]"),
];

#[test]
fn what_means_the_same_is_no_difference() {
    for (from, to) in SAME {
        assert_eq!(changed(from, to), "", "{to}");
    }
}

/// A part of the base, what stands there instead, and what is said of it.
const LINES: &[(&str, &str, &str)] = &[
    ("keepalive: 60s", "keepalive: 30s", "~ listener web: limits.keepalive: 60s → 30s"),
    ("keepalive: 60s, ", "", "~ listener web: limits.keepalive: 60s → 75s (default)"),
    (
        ", limits: { keepalive: 60s, flood: 100/s }",
        "",
        "~ listener web: limits.flood: 100/s → not set\n~ listener web: limits.keepalive: 60s → 75s (default)",
    ),
    (
        "bind: \"127.0.0.1:8080\"",
        "bind: \"127.0.0.1:80\"",
        "~ listener web: bind: 127.0.0.1:8080 → 127.0.0.1:80 (needs an in-place upgrade)",
    ),
    ("\"127.0.0.1:8081\", ", "", "~ listener other: bind: -127.0.0.1:8081 (needs an in-place upgrade)"),
    (
        "  web:",
        "  third: { bind: \"127.0.0.1:1\" }\n  web:",
        "+ listener third: 127.0.0.1:1 (needs an in-place upgrade)",
    ),
    (
        "process: { drain",
        "process: { threads: 4, drain",
        "~ process.threads: auto (default) → 4 (needs an in-place upgrade)",
    ),
    ("requests: 30s", "requests: 31s", "~ process.drain.requests: 30s → 31s"),
    (
        "127.0.0.1:9900",
        "127.0.0.1:9901",
        "~ admin.bind: 127.0.0.1:9900 → 127.0.0.1:9901 (needs an in-place upgrade)",
    ),
    ("a-token-that-nobody-sees", "another-that-nobody-sees", "~ admin.tokens.ops: (secret) changed"),
    (", tokens: { ops: a-token-that-nobody-sees }", "", "~ admin.tokens.ops: (secret) removed"),
    (
        "0123456789abcdef0123456789abcdef",
        "1123456789abcdef0123456789abcdef",
        "~ auth provider sso: jwt.secret: (secret) changed",
    ),
    ("header: x-key", "header: x-other", "~ auth provider keys: api_key.header: x-key → x-other"),
    (
        "free: { limits: 5/s per consumer }",
        "free: { limits: 6/s per consumer }",
        "~ plan free: limits: 5/s per consumer → 6/s per consumer",
    ),
    (
        "free: { limits: 5/s per consumer }",
        "free: { quota: { requests: 10/day } }",
        "~ plan free: limits: [5/s per consumer] → not set\n~ plan free: quota.requests: not set → 10/day (needs an in-place upgrade)",
    ),
    ("ids: [a, b]", "ids: [a, c]", "~ consumer alice: ids: -b +c"),
    ("consumers:\n", "consumers:\n  bob: {}\n", "+ consumer bob"),
    (
        "timeouts: { response: 30s }",
        "timeouts: { response: 10s }",
        "~ defaults.timeouts.response: 30s → 10s (3 routes inherit it)",
    ),
    (
        "hosts: shop.example",
        "hosts: shop.example\n    timeouts: { connect: 2s }",
        "~ api shop: timeouts.connect: not set → 2s (3 routes inherit it)",
    ),
    ("health: GET /healthz", "health: tcp", "~ upstream app: health.probe: GET /healthz → tcp"),
    (
        "\"127.0.0.1:3001\"",
        "{ addr: \"127.0.0.1:3001\", weight: 2 }",
        "~ upstream app: targets: -127.0.0.1:3001 +{ addr: 127.0.0.1:3001, weight: 2 }",
    ),
    ("base: /shop", "base: /store", "~ api shop: base: /shop → /store (all its routes move)"),
    ("to: app, auth", "to: two, auth", "~ route shop.write: to: app → two"),
    ("auth: keys, ", "auth: public, ", "~ route shop.write: auth: [keys] → public (everybody may call)"),
    (
        "[20/s per consumer, 1000/h per client_ip]",
        "20/s per consumer",
        "~ route shop.write: limits: -1000/h per client_ip",
    ),
    (
        "[20/s per consumer, 1000/h per client_ip]",
        "none",
        "~ route shop.write: limits: [1000/h per client_ip, 20/s per consumer] → [] (it is no longer limited)",
    ),
    (
        ", limits: [20/s per consumer, 1000/h per client_ip]",
        "",
        "~ route shop.write: limits: [1000/h per client_ip, 20/s per consumer] → not set (inherited ones hold, if there are any)",
    ),
    (
        "list: [1, \"1\", null]",
        "list: [\"1\", \"1\", null]",
        "~ route shop.own: to.respond.json.list: -1 +\"1\"",
    ),
    ("set: { x-edge: a }", "set: { x-edge: b }", "~ route shop.own: request.headers.set.x-edge: a → b"),
    (
        "match: /own",
        "match: /mine",
        "~ route shop.own: match: /own → /mine (requests to shop.example/shop/own get 404 unless another route matches)",
    ),
    (
        "      read: { match: \"GET /orders/{id}\", to: app }\n",
        "",
        "- route shop.read: GET /orders/{id} → app (requests to GET shop.example/shop/orders/{id} get 404 unless another route matches)",
    ),
    (
        "      read: {",
        "      fresh: {",
        "+ route shop.fresh: GET /orders/{id} → app\n- route shop.read: GET /orders/{id} → app (route shop.fresh takes its requests)",
    ),
];

#[test]
fn every_kind_of_change_has_its_line() {
    for (from, to, line) in LINES {
        assert_eq!(changed(from, to).trim_end(), *line, "{from} => {to}");
    }
}

#[test]
fn a_change_is_seen_both_ways() {
    let there = between_texts(BASE, &with("  two: { targets: [\"127.0.0.1:4000\"] }\n", ""));
    assert_eq!(there.to_string(), "- upstream two: 127.0.0.1:4000\n");
    let back = between_texts(&with("  two: { targets: [\"127.0.0.1:4000\"] }\n", ""), BASE);
    assert_eq!(back.to_string(), "+ upstream two: 127.0.0.1:4000\n");
}

#[test]
fn what_is_from_outside_is_never_told() {
    let one = with("header: x-key", "header: x-key, forward: \"${file:one}\"");
    let two = one.replace("${file:one}", "${file:two}");
    let plain = one.replace("${file:one}", "x-name");
    for (old, new) in
        [(&one, &two), (&one, &plain), (&plain, &one), (&one, &BASE.to_owned()), (&BASE.to_owned(), &two)]
    {
        let difference = between_texts(old, new);
        let told = format!(
            "{difference} {} {:?}",
            serde_json::to_string(&difference).unwrap(),
            difference.summary()
        );
        assert!(told.contains("~ auth provider keys: api_key.forward: (secret) "), "{told}");
        assert!(!told.contains("s3cret") && told.contains("\"secret\":true"), "{told}");
    }
    let whole = with("consumers:\n", "consumers:\n  bob: { ids: [\"${file:one}\"] }\n");
    let told = serde_json::to_string(&between_texts(BASE, &whole)).unwrap();
    assert!(told.contains("(secret)") && !told.contains("s3cret"), "{told}");
    // The same value, from another place: nothing has changed.
    assert!(between_texts(&one, &one.replace("${file:one}", "s3cret-number-one")).is_empty());
    let list = with("ids: [a, b]", "ids: [a, \"${file:one}\"]");
    let told = between_texts(&list, &list.replace("file:one", "file:two")).to_string();
    assert_eq!(told, "~ consumer alice: ids: (secret) changed\n");
}

#[test]
fn a_limit_from_outside_is_not_told() {
    let old = with("limits: 5/s per consumer", "limits: \"${file:one}\"");
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("one"), "71/s per consumer").unwrap();
    let told = diff(&read(base.path(), &old), &read(base.path(), BASE)).to_string();
    assert_eq!(told, "~ plan free: limits: (secret) → 5/s per consumer\n");
}

#[test]
fn a_configuration_without_its_secrets_can_be_compared() {
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("one"), "GET /healthz").unwrap();
    let text = with("GET /healthz", "\"${file:one}\"");
    let loaded = read(base.path(), &text);
    let told = crate::config::effective::json(&loaded, &Sources::default());
    assert_eq!(diff_redacted(&told["document"], &loaded).to_string(), "");
    let other = read(base.path(), &text.replace("nobody-sees", "somebody-sees").replace("60s", "50s"));
    assert_eq!(
        diff_redacted(&told["document"], &other).to_string(),
        "~ listener web: limits.keepalive: 60s → 50s\n"
    );
}

#[test]
fn lists_with_secrets_can_be_compared_without_them() {
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("one"), "b").unwrap();
    let loaded = read(base.path(), &with("ids: [a, b]", "ids: [z, \"${file:one}\", \"$${env:X}\"]"));
    let told = crate::config::effective::json(&loaded, &Sources::default());
    assert_eq!(diff_redacted(&told["document"], &loaded).to_string(), "");
}

#[test]
fn a_route_that_moves_to_another_api_takes_its_requests_along() {
    let told = changed("  shop:\n", "  store:\n");
    assert!(
        told.contains("- route shop.read: GET /orders/{id} → app (route store.read takes its requests)\n"),
        "{told}"
    );
    assert!(told.starts_with("- api shop\n- route shop.own: "), "{told}");
}

#[test]
fn includes_do_not_count() {
    let base = tempfile::tempdir().unwrap();
    let whole = read(base.path(), BASE);
    let (main, apis) = BASE.split_at(BASE.find("upstreams:").unwrap());
    std::fs::write(base.path().join("part.yaml"), apis).unwrap();
    let split = read(base.path(), &format!("{main}\ninclude: part.yaml\n"));
    assert!(diff(&whole, &split).is_empty());
}

#[test]
fn the_summary_counts_things_and_not_keys() {
    assert_eq!(between_texts(BASE, BASE).summary(), "nothing");
    let new = with("      read: {", "      fresh: {")
        .replace("to: app, auth: keys", "to: two, auth: public")
        .replace("GET /healthz", "GET /live")
        .replace("60s", "50s")
        .replace("30s", "20s");
    let difference = between_texts(BASE, &new);
    assert_eq!(difference.summary(), "+1 -1 ~1 routes, ~1 listener, ~1 upstream, ~2 settings");
    assert_eq!(difference.needs_upgrade(), Vec::<&str>::new());
}

#[test]
fn what_takes_a_new_process_is_said_with_its_reason() {
    let quota = with("free: { limits: 5/s per consumer }", "free: { quota: { requests: 10/day } }");
    for (old, new, expected) in [
        (BASE, with("  other:", "  renamed:"), vec!["listener `other` is gone", "listener `renamed` is new"]),
        (BASE, with("process: { drain", "process: { user: www, drain"), vec!["`process.user` changes"]),
        (
            BASE,
            with("access_log: { sample: 10% }", "access_log: none"),
            vec!["`telemetry.access_log` changes"],
        ),
        (BASE, with("sample: 10%", "sample: 10%, to: stderr"), vec!["`telemetry.access_log.to` changes"]),
        (BASE, with("sample: 10%", "sample: 20%"), vec![]),
        (
            BASE,
            with("consumers:\n", "stores: { local: { quotas: none, max_keys: 5 } }\nconsumers:\n"),
            vec![],
        ),
        (BASE, quota.clone(), vec!["the file of quotas changes"]),
        (&quota, BASE.to_owned(), vec!["the file of quotas changes"]),
        (&quota, quota.replace("10/day", "11/day"), vec![]),
        (
            &quota,
            format!("{quota}stores: {{ local: {{ quotas: /q, flush: 2s }} }}\n"),
            vec!["the file of quotas changes"],
        ),
    ] {
        let difference = between_texts(old, &new);
        assert_eq!(difference.needs_upgrade(), expected, "{difference}");
        assert!(!difference.is_empty());
    }
}

#[test]
fn json_is_a_list_of_changes() {
    let difference = between_texts(BASE, &with("keepalive: 60s", "keepalive: 30s"));
    let expected = serde_json::json!([{
        "kind": "changed", "thing": "listener", "name": "web", "path": "listeners.web.limits.keepalive",
        "key": "limits.keepalive", "old": "60s", "new": "30s",
    }]);
    assert_eq!(serde_json::to_value(&difference).unwrap(), expected);
}

/// Every word of a tree, as the path that leads there.
fn places(node: &Node, path: &mut Vec<usize>, into: &mut Vec<Vec<usize>>) {
    if matches!(&node.kind, NodeKind::Scalar(scalar) if !scalar.value.is_null()) {
        into.push(path.clone());
    }
    let inner: Vec<&Node> = match &node.kind {
        NodeKind::Seq(items) => items.iter().collect(),
        NodeKind::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
        NodeKind::Scalar(_) | NodeKind::Refused => Vec::new(),
    };
    for (number, inner) in inner.into_iter().enumerate() {
        path.push(number);
        places(inner, path, into);
        path.pop();
    }
}

fn at<'a>(node: &'a mut Node, path: &[usize]) -> &'a mut Node {
    let Some((first, rest)) = path.split_first() else { return node };
    match &mut node.kind {
        NodeKind::Seq(items) => at(&mut items[*first], rest),
        NodeKind::Map(entries) => at(&mut entries[*first].value, rest),
        NodeKind::Scalar(_) | NodeKind::Refused => panic!(),
    }
}

fn shuffle(node: &mut Node, seed: &mut u64) {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    };
    match &mut node.kind {
        NodeKind::Map(entries) => {
            entries.sort_by_cached_key(|_| next());
            entries.iter_mut().for_each(|entry| shuffle(&mut entry.value, seed));
        }
        NodeKind::Seq(items) => items.iter_mut().for_each(|item| shuffle(item, seed)),
        NodeKind::Scalar(_) | NodeKind::Refused => {}
    }
}

fn tree() -> Node {
    yaml::parse(0, BASE, &mut Issues::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_order_of_keys_does_not_count(mut seed in any::<u64>()) {
        let (old, mut new) = (tree(), tree());
        shuffle(&mut new, &mut seed);
        prop_assert_eq!(between(&old, &new).to_string(), "");
    }

    /// A word that is another is a difference wherever it stands, in any order of keys, and seen both ways.
    #[test]
    fn every_word_counts(place in any::<prop::sample::Index>(), mut seed in any::<u64>()) {
        let (old, mut new) = (tree(), tree());
        let mut all = Vec::new();
        places(&new, &mut Vec::new(), &mut all);
        let NodeKind::Scalar(scalar) = &mut at(&mut new, &all[place.index(all.len())]).kind else { panic!() };
        scalar.value = "quite-another".into();
        shuffle(&mut new, &mut seed);
        let (there, back) = (between(&old, &new), between(&new, &old));
        prop_assert!(!there.is_empty() && !back.is_empty());
        prop_assert_eq!(there.changes.len(), back.changes.len());
    }

    /// Whatever stands there: nothing differs from itself, and nothing panics.
    #[test]
    fn nothing_differs_from_itself(text in "[a-z{}\\[\\]:, \n-]{0,80}") {
        if let Some(tree) = yaml::parse(0, &text, &mut Issues::default()) {
            prop_assert!(between(&tree, &tree).is_empty());
            let other = yaml::parse(0, BASE, &mut Issues::default()).unwrap();
            let _ = between(&tree, &other).to_string();
        }
    }
}
