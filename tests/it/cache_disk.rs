//! Stored answers on disk: over a restart, a kill, an upgrade and a reload; purged for good.

use crate::harness::{Answer, Client, DEADLINE, Gateway, Plan, Upstream, assert_eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;

const CACHED: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
process: { drain: { streams: 1s } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"] } }
cache: { memory: 64MiB, disk: { path: "{{folder}}", size: 1GiB } }
apis:
  shop:
    auth: public
    cache: { ttl: 1h, max_object: 16MiB, stale: { error: 1h }, tags: ["item:${path.id}"] }
    routes: { item: { match: "/items/{id}", to: app } }
"#;

/// Long enough to be read as it is sent.
const LONG: usize = 3 << 20;

fn app() -> Upstream {
    Upstream::start(|request| match &*request.target {
        "/items/long" => Answer::ok(long()),
        "/items/chunks" => Answer::ok(long()).chunked(10_000),
        _ => Answer::ok(format!("this is {}", request.target)),
    })
}

fn long() -> Vec<u8> {
    (0..LONG).map(|at| (at * 31 % 251) as u8).collect()
}

fn gateway(app: &Upstream, folder: &Path) -> Gateway {
    Plan::new(CACHED).with("app", app.addr()).with("folder", folder.display()).start()
}

fn disk(gateway: &Gateway) -> Value {
    let ran = gateway.ask(&["cache", "stats", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    ran.json()["disk"].clone()
}

fn is_ready(gateway: &Gateway) -> bool {
    disk(gateway)["state"] == "ready"
}

fn ready(gateway: &Gateway) {
    assert_eventually(DEADLINE, "the disk is ready", || is_ready(gateway));
}

/// The answer, and whether it was a hit.
fn get(client: &mut Client, target: &str) -> (Vec<u8>, bool) {
    let answer = client.get(target);
    assert_eq!(answer.status, 200, "{target}");
    let status = answer.header("cache-status").unwrap_or_default().to_owned();
    (answer.body, status.starts_with("tollgate; hit"))
}

fn ask_all(gateway: &Gateway, hits: bool) {
    let mut client = gateway.client();
    for target in ["/items/1", "/items/2", "/items/long", "/items/chunks"] {
        let (body, is_hit) = get(&mut client, target);
        let expected = if target.len() > 8 { long() } else { format!("this is {target}").into_bytes() };
        assert!(body == expected, "{target}: {} bytes", body.len());
        assert_eq!(is_hit, hits, "{target}");
    }
}

fn written(gateway: &Gateway, count: u64) {
    assert_eventually(DEADLINE, "all are written", || disk(gateway)["written"] == count);
}

#[test]
fn answers_outlive_a_restart_and_a_kill() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let first = gateway(&app, folder.path());
    ready(&first);
    ask_all(&first, false);
    written(&first, 4);
    first.signal(Signal::SIGTERM);
    assert!(first.wait_exit(DEADLINE).success());

    for _ in 0..2 {
        let next = gateway(&app, folder.path());
        ready(&next);
        ask_all(&next, true);
        assert_eq!(disk(&next)["objects"], 4);
        next.signal(Signal::SIGKILL);
        next.wait_exit(DEADLINE);
    }
    assert_eq!(app.requests().len(), 4);
    let without = Upstream::start(|_| Answer::new(503, "no"));
    let next = gateway(&without, folder.path());
    ready(&next);
    let answer = next.client().request("GET", "/items/long").header("range", "bytes=3000000-3000009").send();
    assert_eq!((answer.status, answer.body), (206, long()[3_000_000..3_000_010].to_vec()));
    assert_eq!(next.client().request("HEAD", "/items/1").send().header("content-length"), Some("16"));
    assert!(without.requests().is_empty());
}

#[test]
fn a_purge_reaches_the_disk_and_outlives_a_kill() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let first = gateway(&app, folder.path());
    ready(&first);
    ask_all(&first, false);
    written(&first, 4);
    let url = "http://TEST.example:80/items/2";
    for (args, met) in [(["--tag", "item:1"], 1), (["--url", url], 1), (["--tag", "item:1"], 0)] {
        let ran = first.ask(&[&["cache", "purge"], &args[..]].concat());
        assert_eq!(ran.code, 0, "{ran:#?}");
        assert!(ran.stdout.starts_with(&format!("purged {met} ")), "{args:?}: {}", ran.stdout);
    }
    assert_eq!(first.ask(&["cache", "purge", "--tag", "item:long", "--soft"]).code, 0);
    first.signal(Signal::SIGKILL);
    first.wait_exit(DEADLINE);

    let next = gateway(&app, folder.path());
    ready(&next);
    let mut client = next.client();
    for (target, is_stored) in
        [("/items/1", false), ("/items/2", false), ("/items/chunks", true), ("/items/long", false)]
    {
        assert_eq!(get(&mut client, target).1, is_stored, "{target}");
    }
    app.down();
    assert_eq!(next.ask(&["cache", "purge", "--tag", "item:1", "--soft"]).code, 0);
    let stale = client.get("/items/1");
    assert_eq!((stale.status, stale.text().as_str()), (200, "this is /items/1"));
    assert!(stale.header("cache-status").unwrap().contains("stale"), "{stale:?}");
}

#[test]
fn an_upgrade_takes_the_disk_along() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let gateway = gateway(&app, folder.path());
    ready(&gateway);
    ask_all(&gateway, false);
    written(&gateway, 4);
    let refused = gateway.ask(&["upgrade", "--timeout", "1", "--binary", "/bin/false"]);
    assert_eq!(refused.code, 6, "{refused:#?}");
    get(&mut gateway.client(), "/items/after");
    written(&gateway, 5);
    let ran = gateway.ask(&["upgrade"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    ready(&gateway);
    assert_eq!(disk(&gateway)["written"], 0, "another process");
    ask_all(&gateway, true);
    get(&mut gateway.client(), "/items/new");
    written(&gateway, 1);
}

#[test]
fn a_reload_brings_the_disk_and_takes_it_away() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let gateway = gateway(&app, folder.path());
    ready(&gateway);
    let path = folder.path().display();
    let with = format!("disk: {{ path: \"{path}\", size: 1GiB }}");
    // Without the disk no more could be kept, and `check` would say so.
    gateway.edit("max_object: 16MiB", "max_object: 1MiB");
    gateway.edit(&with, &with.replace("1GiB", "1MiB"));
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eventually(DEADLINE, "the new size", || disk(&gateway)["most"] == 1 << 20);
    gateway.edit(&format!(", {}", with.replace("1GiB", "1MiB")), "");
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eventually(DEADLINE, "no disk", || disk(&gateway).is_null());
    let other = self::gateway(&app, folder.path());
    ready(&other);
    gateway.edit("memory: 64MiB", &format!("memory: 64MiB, {with}"));
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eventually(DEADLINE, "it waits", || disk(&gateway)["state"] == "waiting");
    get(&mut gateway.client(), "/items/1");
    assert!(get(&mut gateway.client(), "/items/1").1, "from memory");
    drop(other);
    ready(&gateway);
}

#[test]
fn a_disk_that_fails_is_told_of_and_does_without() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let path = folder.path().join("cache");
    std::fs::write(&path, "no folder").unwrap();
    let gateway = gateway(&app, &path);
    assert_eventually(DEADLINE, "it fails", || disk(&gateway)["state"] == "failing");
    get(&mut gateway.client(), "/items/1");
    assert!(get(&mut gateway.client(), "/items/1").1);
    let metrics = gateway.admin_socket().get("/metrics").text();
    assert!(metrics.contains("\ntollgate_cache_disk_failing 1\n"), "{metrics}");
    let said = || gateway.stderr().matches("answers are kept in memory only").count();
    assert_eq!(said(), 1, "{}", gateway.stderr());
    std::fs::remove_file(&path).unwrap();
    ready(&gateway);
    get(&mut gateway.client(), "/items/2");
    written(&gateway, 1);
    assert_eq!(said(), 1);
    assert!(gateway.admin_socket().get("/metrics").text().contains("\ntollgate_cache_disk_failing 0\n"));
}
