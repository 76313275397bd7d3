//! Sticky sessions and backups.

use super::start;
use crate::harness::{Client, DEADLINE, Upstream, assert_eventually};

fn cookie_of(client: &mut Client) -> (String, String) {
    let response = client.get("/");
    let cookie = response.header("set-cookie").expect("a cookie").to_owned();
    (response.text(), cookie)
}

/// What a client with this cookie is answered, and whether it is given another.
fn with(client: &mut Client, cookie: &str) -> (String, Option<String>) {
    let value = cookie.split(';').next().unwrap();
    let response = client.request("GET", "/").header("cookie", &format!("theme=dark; {value}")).send();
    assert_eq!(response.status, 200);
    (response.text(), response.header("set-cookie").map(str::to_owned))
}

#[test]
fn a_cookie_keeps_a_client_with_its_target() {
    let targets = [Upstream::named("a"), Upstream::named("b"), Upstream::named("c")];
    let [a, b, c] = targets.each_ref().map(Upstream::addr);
    let rules = "balance: { sticky_cookie: { name: tg_route, ttl: 1h } }, health: { probe: tcp, every: 50ms, down: 1, up: 1 }";
    let gateway = start(&format!("targets: [\"{a}\", \"{b}\", \"{c}\"], {rules}"), "");
    let mut client = gateway.client();
    let (name, cookie) = cookie_of(&mut client);
    assert!(
        cookie.starts_with("tg_route=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"),
        "{cookie}"
    );
    assert!(!cookie.contains("127") && !cookie.contains(&a.port().to_string()), "{cookie}");
    for _ in 0..10 {
        assert_eq!(with(&mut client, &cookie), (name.clone(), None), "the same target, and no cookie again");
    }
    assert!(with(&mut client, "tg_route=00000000000000ff").1.is_some(), "a cookie of nobody is replaced");
    let number = usize::from(name.as_bytes()[0] - b'a');
    targets[number].down();
    let (other, new) = with(&mut client, &cookie);
    assert_ne!(other, name);
    let new = new.expect("a cookie for the new target");
    assert_eq!(with(&mut client, &new), (other, None));
    targets[number].up();
    assert_eventually(DEADLINE, "its target is back", || with(&mut gateway.client(), &cookie).0 == name);
}

#[test]
fn backups_are_used_when_nobody_else_is_left() {
    let (first, second, backup) =
        (Upstream::named("first"), Upstream::named("second"), Upstream::named("backup"));
    let list = format!(
        "targets: [\"{}\", \"{}\", {{ addr: \"{}\", backup: true }}]",
        first.addr(),
        second.addr(),
        backup.addr()
    );
    // No time-out of a busy machine is to be held against a target.
    let slow = "timeouts: { response: 30s }";
    let gateway = start(&format!("{list}, health: {{ probe: tcp, every: 50ms, down: 1, up: 1 }}"), slow);
    let answers = |gateway: &crate::harness::Gateway| {
        let mut seen: Vec<String> = (0..8).map(|_| gateway.get("/").text()).collect();
        seen.sort();
        seen.dedup();
        seen
    };
    assert_eq!(answers(&gateway), ["first", "second"]);
    first.down();
    assert_eventually(DEADLINE, "the second alone", || answers(&gateway) == ["second"]);
    second.down();
    assert_eventually(DEADLINE, "the backup", || answers(&gateway) == ["backup"]);
    first.up();
    assert_eventually(DEADLINE, "the first again", || answers(&gateway) == ["first"]);
}
