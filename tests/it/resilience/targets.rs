//! `tollgate upstream`: draining and weights by hand; limits of what is under way.

use super::config;
use crate::harness::{Answer, Gate, Gateway, Plan, Upstream};
use std::collections::BTreeMap;

fn tally(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut client = gateway.client();
    let mut tally = BTreeMap::new();
    for _ in 0..12 {
        *tally.entry(client.get("/").text()).or_default() += 1;
    }
    tally
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_target_is_drained_and_comes_back() {
    let gate = Gate::default();
    let slow = gate.clone();
    let a = Upstream::start(move |request| {
        if request.target == "/slow" {
            slow.wait();
        }
        Answer::ok("a")
    });
    let b = Upstream::named("b");
    let upstream = format!("targets: [\"{}\", \"{}\"], health: none", a.addr(), b.addr());
    let yaml = config(&upstream, "timeouts: { response: 30s }")
        .replace("version: 1", "version: 1\nadmin: { bind: \"unix:{{dir}}/admin.sock\" }");
    let gateway = Plan::new(&yaml).start();
    // One of the two requests that follow each other goes to the slow target.
    let mut clients = [gateway.client(), gateway.client()];
    for client in &mut clients {
        client.request("GET", "/slow").send_only();
    }
    a.wait_for_requests(1);

    let address = a.addr().to_string();
    let drained = gateway.ask(&["upstream", "drain", "app", &address]);
    assert_eq!(drained.code, 0, "{drained:?}");
    let line = drained.stdout.lines().find(|line| line.contains(&address)).unwrap().to_owned();
    assert!(line.trim_start().starts_with("drained") && line.contains("in flight 1"), "{line}");
    assert_eq!(tally(&gateway), counts(&[("b", 12)]));
    gate.open();
    let mut answers = clients.each_mut().map(|client| client.read("GET").text());
    answers.sort();
    assert_eq!(answers, ["a", "b"], "what was under way goes on");

    let json = gateway.ask(&["upstream", "list", "app", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let target = &told[0]["targets"][0];
    assert_eq!(
        (&target["drained"], &target["by_hand"], &target["in_flight"]),
        (&true.into(), &true.into(), &0.into())
    );

    let reloaded = gateway.ask(&["reload"]);
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    assert_eq!(
        tally(&gateway),
        counts(&[("b", 12)]),
        "a reload that does not change the upstream keeps it drained"
    );

    assert_eq!(gateway.ask(&["upstream", "weight", "app", &address, "2"]).code, 0);
    assert_eq!(tally(&gateway), counts(&[("a", 8), ("b", 4)]));
    assert_eq!(gateway.ask(&["upstream", "undrain", "app", &address]).code, 0);
    assert_eq!(tally(&gateway), counts(&[("a", 6), ("b", 6)]));

    for (args, says) in [
        (&["upstream", "drain", "apq"][..], "there is no upstream `apq`"),
        (&["upstream", "drain", "app", "10.9.9.9:1"], "has no target `10.9.9.9:1`"),
    ] {
        let refused = gateway.ask(args);
        assert!(refused.code == 1 && refused.stderr.contains(says), "{refused:?}");
    }
    assert_eq!(gateway.ask(&["upstream", "drain", "app"]).code, 0);
    let nobody = gateway.get("/");
    assert_eq!((nobody.status, nobody.problem_code().as_str()), (503, "no-target"));
}

#[test]
fn what_is_too_much_is_told_when_to_come_again() {
    let gate = Gate::default();
    let slow = gate.clone();
    let upstream = Upstream::start(move |_| {
        slow.wait();
        Answer::ok("done")
    });
    for limit in ["max: 1", "per_target: 1"] {
        let said = format!("targets: [\"{}\"], health: none, pool: {{ {limit} }}", upstream.addr());
        let gateway = Plan::new(&config(&said, "timeouts: { response: 30s }")).start();
        let before = upstream.requests().len();
        let mut first = gateway.client();
        first.request("GET", "/").send_only();
        upstream.wait_for_requests(before + 1);
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.problem_code().as_str()), (503, "upstream-saturated"));
        assert_eq!(
            (refused.header("retry-after"), refused.header("proxy-status")),
            (Some("1"), Some("tollgate; error=connection_limit_reached"))
        );
        drop(first);
    }
    gate.open();
}
