//! Who is chosen, and what a request holds.

use super::*;
use crate::upstream::spec::HostRewrite;

#[test]
fn round_robin_is_smooth_and_exact() {
    let upstream =
        make(spec(Balance::RoundRobin, &[("10.0.0.1:1", 5), ("10.0.0.1:2", 1), ("10.0.0.1:3", 1)]));
    assert_eq!(picks(&upstream, 14), "11213111121311");
    let upstream = make(spec(Balance::RoundRobin, &THREE));
    set_health(&upstream, "10.0.0.1:2", false);
    assert_eq!(picks(&upstream, 6).matches('1').count(), 3, "the others share evenly while one is down");
    set_health(&upstream, "10.0.0.1:2", true);
    assert_eq!(picks(&upstream, 9).matches('2').count(), 3);
}

#[test]
fn weight_zero_is_drained_and_all_zero_is_nobody() {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::P2cEwma, Balance::Hash] {
        let upstream = make(spec(balance, &[("10.0.0.1:1", 0), ("10.0.0.1:2", 3), ("10.0.0.1:3", 0)]));
        assert_eq!(picks(&upstream, 20), "2".repeat(20));
        for i in 0..100u32 {
            assert_eq!(label(&upstream.pick(Some(&i.to_le_bytes()), &[]).unwrap()), "10.0.0.1:2");
        }
        let drained = upstream.targets()[1].id();
        assert_eq!(label(&upstream.pick(None, &[drained]).unwrap()), "10.0.0.1:2", "tried, but the only one");
        let nobody = make(spec(balance, &[("10.0.0.1:1", 0), ("10.0.0.1:2", 0)]));
        assert_eq!(nobody.pick(Some(b"k"), &[]).unwrap_err(), PickError::NoTargets);
        assert!(!nobody.is_healthy());
    }
}

#[test]
fn weights_can_be_set_by_hand() {
    let upstream = make(spec(Balance::RoundRobin, &THREE));
    assert!(upstream.set_weight("10.0.0.1:1", Some(0)));
    assert!(!upstream.set_weight("10.0.0.1:9", Some(1)));
    assert!(!picks(&upstream, 12).contains('1'));
    assert!(upstream.set_weight("10.0.0.1:1", Some(2)));
    assert_eq!(picks(&upstream, 12).matches('1').count(), 6);
}

#[test]
fn a_target_written_twice_counts_twice() {
    let upstream =
        make(spec(Balance::RoundRobin, &[("10.0.0.1:1", 1), ("10.0.0.1:2", 1), ("10.0.0.1:1", 1)]));
    assert_eq!(upstream.targets().len(), 2);
    assert_eq!(picks(&upstream, 9).matches('1').count(), 6);
}

#[test]
fn least_conn_takes_the_least_loaded_for_its_weight() {
    let upstream = make(spec(Balance::LeastConn, &THREE));
    assert_eq!(picks(&upstream, 6), "123123", "idle targets take turns");
    let held: Vec<_> = (0..30).map(|_| upstream.pick(None, &[]).unwrap()).collect();
    assert!(upstream.targets().iter().all(|target| target.in_flight() == 10));
    drop(held);

    let upstream = make(spec(Balance::LeastConn, &[("10.0.0.1:1", 3), ("10.0.0.1:2", 1)]));
    let held: Vec<_> = (0..40).map(|_| upstream.pick(None, &[]).unwrap()).collect();
    let in_flight: Vec<_> = upstream.targets().iter().map(|target| target.in_flight()).collect();
    assert_eq!(in_flight, [30, 10]);
    drop(held);
    assert_eq!(picks(&upstream, 40).matches('1').count(), 30, "idle targets share by weight");
}

#[test]
fn p2c_prefers_the_faster_and_spreads_over_equals() {
    let upstream = make(spec(Balance::P2cEwma, &THREE));
    let slow = upstream.targets()[0].id();
    let mut counts = BTreeMap::new();
    for _ in 0..3000 {
        let lease = upstream.pick(None, &[]).unwrap();
        *counts.entry(label(&lease)).or_insert(0) += 1;
        let took = Duration::from_millis(if lease.target().id() == slow { 200 } else { 5 });
        lease.observe(took, Instant::now());
    }
    assert!(counts["10.0.0.1:1"] < 30, "the slow one is left alone: {counts:?}");
    assert!(counts["10.0.0.1:2"] > 1200 && counts["10.0.0.1:3"] > 1200, "{counts:?}");

    let failing = make(spec(Balance::P2cEwma, &THREE[..2]));
    for target in failing.targets() {
        target.ewma.observe(Duration::from_millis(300), super::ewma::clock());
    }
    let lease = failing.pick(None, &[]).unwrap();
    lease.observe_failure();
    let failed = label(&lease);
    drop(lease);
    assert!(
        (0..50).all(|_| label(&failing.pick(None, &[]).unwrap()) != failed),
        "a failure is worse than slow"
    );
}

#[test]
fn p2c_shares_equals_by_weight() {
    let upstream = make(spec(Balance::P2cEwma, &[("10.0.0.1:1", 3), ("10.0.0.1:2", 1)]));
    let now = super::ewma::clock();
    upstream.targets().iter().for_each(|target| target.ewma.observe(Duration::from_millis(5), now));
    let held: Vec<_> = (0..400).map(|_| upstream.pick(None, &[]).unwrap()).collect();
    let first = upstream.targets()[0].in_flight();
    assert!((285..=315).contains(&first), "{first} of 400 for three quarters of the weight");
    drop(held);
}

fn owners(upstream: &Upstream) -> Vec<String> {
    (0..3000u32).map(|key| label(&upstream.pick(Some(&key.to_le_bytes()), &[]).unwrap())).collect()
}

#[test]
fn hashing_is_stable_when_health_flips() {
    let names: Vec<String> = (1..=6).map(|n| format!("10.0.0.{n}:80")).collect();
    let targets: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let upstream = make(spec(Balance::Hash, &targets));
    let before = owners(&upstream);
    for name in &names {
        let share = before.iter().filter(|owner| *owner == name).count();
        assert!((300..=700).contains(&share), "{name} has {share} of 3000 keys");
    }
    set_health(&upstream, &names[2], false);
    let during = owners(&upstream);
    assert!(before.iter().zip(&during).all(|(b, d)| if *b == names[2] { *d != names[2] } else { b == d }));
    let heirs: std::collections::BTreeSet<_> =
        before.iter().zip(&during).filter(|(b, d)| b != d).map(|(_, d)| d).collect();
    assert!(heirs.len() >= 4, "its keys are spread over the others: {heirs:?}");
    set_health(&upstream, &names[2], true);
    assert_eq!(owners(&upstream), before);

    let fewer = owners(&make(spec(Balance::Hash, &targets[..5])));
    let moved = before.iter().zip(&fewer).filter(|(b, f)| b != f).count();
    assert_eq!(
        moved,
        before.iter().filter(|owner| **owner == names[5]).count(),
        "only the keys of the one that left move"
    );
    assert!(upstream.set_weight(&names[5], Some(0)));
    assert_eq!(owners(&upstream), fewer, "draining is leaving");
}

#[test]
fn hashing_is_nginx_consistent_hashing_and_falls_back_to_round_robin() {
    let upstream = make(spec(Balance::Hash, &[("127.0.0.1:7777", 1), ("127.0.0.1:7778", 1)]));
    for (key, owner) in
        [("/some/path", "127.0.0.1:7778"), ("/some/longer/path", "127.0.0.1:7777"), ("/g", "127.0.0.1:7777")]
    {
        assert_eq!(label(&upstream.pick(Some(key.as_bytes()), &[]).unwrap()), owner);
    }
    assert_eq!(picks(&upstream, 4), "7878");
    let sockets = make(spec(Balance::Hash, &[("unix:/run/a.sock", 1), ("unix:/run/b.sock", 1)]));
    let owners = owners(&sockets);
    let first = owners.iter().filter(|owner| *owner == "unix:/run/a.sock").count();
    assert!((1000..=2000).contains(&first), "sockets have their place on the ring too: {first}");
}

#[test]
fn tried_targets_are_avoided_while_there_are_others() {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::P2cEwma, Balance::Hash] {
        let upstream = make(spec(balance, &THREE));
        for round in 0..200u32 {
            let mut tried = Vec::new();
            for _ in 0..3 {
                let lease = upstream.pick(Some(&round.to_le_bytes()), &tried).unwrap();
                assert!(!tried.contains(&lease.target().id()), "{balance:?}");
                tried.push(lease.target().id());
            }
            assert!(upstream.pick(Some(b"k"), &tried).is_ok(), "all tried: any will do");
        }
    }
}

#[test]
fn limits_saturate_and_places_come_back() {
    let mut limited = spec(Balance::RoundRobin, &THREE);
    limited.pool = PoolSpec { per_target: 2, max: 5, ..PoolSpec::default() };
    let upstream = make(limited);
    let mut held: Vec<_> = (0..5).map(|_| upstream.pick(None, &[]).unwrap()).collect();
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::Saturated, "the upstream is full");
    held.pop();
    held.push(upstream.pick(None, &[]).unwrap());
    assert!(upstream.targets().iter().all(|target| target.in_flight() <= 2));
    drop(held);
    assert!(upstream.targets().iter().all(|target| target.in_flight() == 0));

    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::P2cEwma, Balance::Hash] {
        let mut limited = spec(balance, &THREE);
        limited.pool.per_target = 1;
        let upstream = make(limited);
        let held: Vec<_> = (0..3).map(|_| upstream.pick(Some(b"same"), &[]).unwrap()).collect();
        assert_eq!(
            upstream.pick(Some(b"same"), &[]).unwrap_err(),
            PickError::Saturated,
            "every target is full"
        );
        drop(held);
        assert!(upstream.pick(Some(b"same"), &[]).is_ok());
    }
}

#[tokio::test]
async fn a_panic_and_a_dropped_future_give_the_place_back() {
    let upstream = make(spec(Balance::RoundRobin, &THREE[..1]));
    let in_flight = || upstream.targets()[0].in_flight();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _lease = upstream.pick(None, &[]).unwrap();
        assert_eq!(in_flight(), 1);
        panic!("in the middle of a request");
    }));
    assert!(panicked.is_err());
    assert_eq!(in_flight(), 0);

    let other = Arc::clone(&upstream);
    let cut = tokio::spawn(async move {
        let _lease = other.pick(None, &[]).unwrap();
        std::future::pending::<()>().await
    });
    until("under way", || in_flight() == 1).await;
    cut.abort();
    until("given back", || in_flight() == 0).await;
}

#[test]
fn places_are_counted_exactly_under_contention() {
    let mut limited = spec(Balance::LeastConn, &THREE);
    limited.pool = PoolSpec { per_target: 3, max: 7, ..PoolSpec::default() };
    let upstream = make(limited);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    if let Ok(lease) = upstream.pick(None, &[]) {
                        assert!(lease.target().in_flight() <= 3);
                    }
                }
            });
        }
    });
    assert!(upstream.targets().iter().all(|target| target.in_flight() == 0));
    let held: Vec<_> = (0..7).map(|_| upstream.pick(None, &[]).unwrap()).collect();
    assert!(upstream.pick(None, &[]).is_err());
    drop(held);
}

#[test]
fn none_healthy_is_said_as_such() {
    let upstream = make(spec(Balance::RoundRobin, &THREE[..2]));
    set_health(&upstream, "10.0.0.1:1", false);
    set_health(&upstream, "10.0.0.1:2", false);
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::NoneHealthy);
    let status = upstream.status();
    assert!(!status.healthy && status.health_changes == 2);
    assert_eq!((status.targets[0].reason.as_str(), status.targets[0].healthy), ("test", false));
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<UpstreamStatus>(&json).unwrap(), status);
}

#[test]
fn a_reload_keeps_what_is_known_of_unchanged_targets() {
    let old = make(spec(Balance::RoundRobin, &THREE));
    set_health(&old, "10.0.0.1:1", false);
    let held = old.pick(None, &[]).unwrap();
    let again = |spec, names: &Arc<Resolver>| Upstream::new(spec, names, &client(), Some(&old)).unwrap();
    assert!(
        Arc::ptr_eq(&again(old.spec().clone(), old.resolver()), &old),
        "nothing has changed: the very same"
    );
    let names = resolver(&[]);
    let remake = |spec| again(spec, &names);
    assert!(!Arc::ptr_eq(&remake(old.spec().clone()), &old), "its names are looked up elsewhere now");
    let mut changed = spec(Balance::LeastConn, &[("10.0.0.1:1", 4), ("10.0.0.1:2", 1), ("10.0.0.1:9", 1)]);
    let new = remake(changed.clone());
    assert_eq!(new.targets()[0].id(), old.targets()[0].id());
    assert!(!new.targets()[0].is_healthy());
    assert_eq!(new.targets()[1].in_flight(), 1, "the request of before still counts");
    drop(held);
    assert_eq!(new.targets()[1].in_flight(), 0);
    assert_eq!(old.members().all()[0].weight, 1, "the running upstream is untouched");

    changed.health.probe = Probe::None;
    assert!(remake(changed).targets()[0].is_healthy(), "checked otherwise: nothing is known");
}

#[test]
fn nonsense_is_refused() {
    let refuse = |change: &dyn Fn(&mut UpstreamSpec), word: &str| {
        let mut spec = spec(Balance::RoundRobin, &THREE);
        change(&mut spec);
        let error = Upstream::new(spec, &resolver(&[]), &client(), None).unwrap_err();
        assert!(error.contains(word), "{error}");
    };
    let http = |path: &str, expect: &[u16]| Probe::Http {
        method: http::Method::GET,
        path: path.into(),
        host: None,
        expect: expect.to_vec(),
    };
    refuse(&|spec| spec.targets.clear(), "no targets");
    refuse(&|spec| spec.health.every = Duration::ZERO, "longer than 0s");
    refuse(&|spec| spec.health.up = 0, "at least 1");
    refuse(&|spec| spec.host = HostRewrite::Literal("a b".into()), "Host");
    refuse(&|spec| spec.health.probe = http("healthz", &[]), "not a path");
    refuse(&|spec| spec.health.probe = http("/healthz", &[99]), "status 99");
    refuse(&|spec| spec.protocol = Protocol::H2, "needs `tls`");
}

#[test]
fn tasks_are_the_same_arcs_every_time() {
    let upstream = make(named("app.test:80"));
    assert_eq!(upstream.tasks().len(), 1, "no probe, no health task");
    let again = upstream.tasks().to_vec();
    assert!(upstream.tasks().iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
    assert_eq!(make(spec(Balance::RoundRobin, &THREE)).tasks()[0].name(), "health of app");
}

#[test]
fn a_peer_is_ready_to_use() {
    let mut spec = spec(Balance::RoundRobin, &[("10.0.0.1:8080", 1)]);
    spec.host = HostRewrite::Target;
    spec.connect = Duration::from_millis(700);
    let lease = make(spec).pick(None, &[]).unwrap();
    let peer = lease.peer();
    assert_eq!(peer.address().to_string(), "10.0.0.1:8080");
    assert_eq!(peer.connection_timeout(), Some(Duration::from_millis(700)));
    assert_eq!(peer.idle_timeout(), Some(Duration::from_secs(60)));
    assert_eq!(lease.target().host().unwrap(), "10.0.0.1:8080");
}

/// Not a test of anything but speed: `cargo test --release --lib pick_speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints numbers, checks nothing"]
fn pick_speed() {
    let names: Vec<String> = (1..=8).map(|n| format!("10.0.0.{n}:80")).collect();
    let targets: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::P2cEwma, Balance::Hash] {
        let upstream = make(spec(balance, &targets));
        let begin = Instant::now();
        for i in 0..1_000_000u32 {
            let _ = std::hint::black_box(upstream.pick(Some(&i.to_le_bytes()), &[]).unwrap());
        }
        println!("{:12} {:4} ns a pick of 8", balance.as_str(), begin.elapsed().as_nanos() / 1_000_000);
    }
    let upstream = make(spec(Balance::RoundRobin, &targets));
    let lease = upstream.pick(None, &[]).unwrap();
    let begin = Instant::now();
    (0..1_000_000).for_each(|_| drop(std::hint::black_box(lease.peer())));
    println!("peer clone   {:4} ns", begin.elapsed().as_nanos() / 1_000_000);
}
