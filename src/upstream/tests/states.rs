//! Who can be chosen after failed requests, with backups, by cookies, and little by little.

use super::*;
use crate::upstream::spec::{BreakerSpec, PassiveSpec, SameSite, StickySpec};
use crate::value::Trouble;

fn with_passive(spec: UpstreamSpec) -> UpstreamSpec {
    let passive = PassiveSpec { failures: 2, ..PassiveSpec::default() };
    UpstreamSpec {
        health: HealthSpec { passive: Some(passive), probe: Probe::None, ..HealthSpec::default() },
        ..spec
    }
}

/// Lets requests to one target fail.
fn fail(upstream: &Upstream, label: &str, times: usize) {
    let target = upstream.targets().into_iter().find(|target| &**target.label() == label).unwrap();
    for _ in 0..times {
        let mut lease = Lease::take(&target, 0, None).unwrap();
        upstream.report(&mut lease, Some(Trouble::Reset), Instant::now());
    }
}

fn used(upstream: &Upstream) -> String {
    let mut used: Vec<char> = picks(upstream, 60).chars().collect();
    used.sort_unstable();
    used.dedup();
    used.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_left_alone_and_comes_back_by_itself() {
    let upstream = make(with_passive(spec(Balance::RoundRobin, &THREE)));
    let supervisor = run(&upstream);
    fail(&upstream, "10.0.0.1:2", 1);
    assert_eq!(used(&upstream), "123");
    fail(&upstream, "10.0.0.1:2", 1);
    assert_eq!((used(&upstream).as_str(), upstream.ejections()), ("13", 1));
    let status = upstream.status().targets.remove(1);
    assert!(status.ejected && status.healthy && !status.drained);
    assert_eq!(status.reason, "2 failures in a row, the last one reset");
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(used(&upstream), "13");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(used(&upstream), "123");
    fail(&upstream, "10.0.0.1:2", 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(used(&upstream), "13", "the second time is longer");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(used(&upstream), "123");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn not_too_many_are_ejected_and_never_the_only_one() {
    let upstream = make(with_passive(spec(Balance::RoundRobin, &THREE)));
    ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"].into_iter().for_each(|label| fail(&upstream, label, 2));
    assert_eq!((used(&upstream).as_str(), upstream.ejections()), ("23", 1), "half of three is one");
    let only = make(with_passive(spec(Balance::RoundRobin, &THREE[..1])));
    fail(&only, "10.0.0.1:1", 50);
    assert_eq!((used(&only).as_str(), only.ejections()), ("1", 0));
}

#[tokio::test(start_paused = true)]
async fn when_too_few_are_left_ejected_ones_are_used() {
    let mut spec = with_passive(spec(Balance::RoundRobin, &THREE));
    spec.health.passive.as_mut().unwrap().max_ejected = 10_000;
    let upstream = make(spec);
    fail(&upstream, "10.0.0.1:1", 2);
    assert_eq!((used(&upstream).as_str(), upstream.status().panics), ("23", false));
    fail(&upstream, "10.0.0.1:2", 2);
    assert_eq!(
        (used(&upstream).as_str(), upstream.status().panics),
        ("123", true),
        "one of three is too few"
    );
    set_health(&upstream, "10.0.0.1:2", false);
    assert_eq!(
        (used(&upstream).as_str(), upstream.status().panics),
        ("3", false),
        "what checks have found down is not used"
    );
}

#[test]
fn backups_stand_in_when_nobody_else_is_left_or_too_few() {
    let with_backup = |below: u16| {
        let mut spec = spec(Balance::RoundRobin, &THREE);
        spec.targets[2].backup = true;
        make(UpstreamSpec { backup_below: below, ..with_passive(spec) })
    };
    let upstream = with_backup(0);
    assert_eq!(used(&upstream), "12");
    set_health(&upstream, "10.0.0.1:1", false);
    assert_eq!(used(&upstream), "2");
    set_health(&upstream, "10.0.0.1:2", false);
    assert_eq!(used(&upstream), "3");
    set_health(&upstream, "10.0.0.1:3", false);
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::NoneHealthy);
    set_health(&upstream, "10.0.0.1:2", true);
    assert_eq!(used(&upstream), "2");

    let upstream = with_backup(6_000);
    assert_eq!(used(&upstream), "12");
    set_health(&upstream, "10.0.0.1:1", false);
    assert_eq!(used(&upstream), "23", "half is less than 60 %");
}

#[test]
fn a_retry_may_go_to_a_backup_only_when_they_are_used() {
    let mut spec = spec(Balance::RoundRobin, &THREE[..2]);
    spec.targets[1].backup = true;
    let upstream = make(spec);
    let first = upstream.pick(None, &[]).unwrap();
    assert!(!upstream.has_other(&[first.target().id()]));
}

#[test]
fn a_cookie_keeps_a_client_until_its_target_is_gone() {
    let sticky = StickySpec {
        upstream: "app".into(),
        name: "tg".into(),
        ttl: None,
        path: "/".into(),
        secure: None,
        same_site: SameSite::Lax,
        secret: None,
    };
    let upstream = make(UpstreamSpec { sticky: Some(sticky), ..spec(Balance::StickyCookie, &THREE) });
    assert_eq!(used(&upstream), "123", "without a cookie they take turns");
    for target in upstream.targets() {
        let field = target.sticky_field(false).unwrap().to_str().unwrap();
        let value = field.split(['=', ';']).nth(1).unwrap();
        assert!(!field.contains("10.0.0.1"), "{field}");
        let key = upstream.sticky_key(value).unwrap();
        for _ in 0..10 {
            assert_eq!(label(&upstream.pick(Some(&key), &[]).unwrap()), **target.label());
        }
        assert_ne!(
            label(&upstream.pick(Some(&key), &[target.id()]).unwrap()),
            **target.label(),
            "a retry goes elsewhere"
        );
        upstream.set_weight(target.label(), Some(0));
        assert_ne!(label(&upstream.pick(Some(&key), &[]).unwrap()), **target.label(), "drained");
        upstream.set_weight(target.label(), None);
        assert_eq!(label(&upstream.pick(Some(&key), &[]).unwrap()), **target.label());
    }
    assert!(upstream.pick(Some(&7_u64.to_le_bytes()), &[]).is_ok(), "a cookie of nobody");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_healthy_again_gets_its_share_little_by_little() {
    let slow =
        UpstreamSpec { slow_start: Duration::from_secs(100), ..spec(Balance::RoundRobin, &THREE[..2]) };
    let upstream =
        make(UpstreamSpec { health: HealthSpec { probe: Probe::None, ..HealthSpec::default() }, ..slow });
    let supervisor = run(&upstream);
    let share = || picks(&upstream, 1100).matches('2').count();
    assert_eq!(share(), 550, "at the start nobody is behind");
    set_health(&upstream, "10.0.0.1:2", false);
    set_health(&upstream, "10.0.0.1:2", true);
    assert_eq!(share(), 100, "a tenth of the other's");
    tokio::time::sleep(Duration::from_secs(51)).await;
    assert!((355..=375).contains(&share()), "half of the other's");
    assert!((45..=55).contains(&upstream.status().targets[1].share));
    tokio::time::sleep(Duration::from_secs(51)).await;
    assert_eq!(share(), 550);
    supervisor.stop().await;
}

#[test]
fn an_open_breaker_refuses_and_a_reload_keeps_it() {
    let breaker = BreakerSpec { min_requests: 4, ..BreakerSpec::default() };
    let with = |breaker| UpstreamSpec { breaker: Some(breaker), ..spec(Balance::RoundRobin, &THREE) };
    let upstream = make(with(breaker));
    for _ in 0..4 {
        let mut lease = upstream.pick(None, &[]).unwrap();
        upstream.report(&mut lease, Some(Trouble::Status(500)), Instant::now());
    }
    let refused = |upstream: &Upstream| matches!(upstream.pick(None, &[]), Err(PickError::Broken(after)) if after > Duration::from_secs(14));
    assert!(refused(&upstream));
    assert_eq!(upstream.status().breaker.as_deref(), Some("open"));
    let resolver = resolver(&["127.0.0.1:9".parse().unwrap()]);
    let reloaded = |breaker| {
        let spec = UpstreamSpec { slow_start: Duration::from_secs(1), ..with(breaker) };
        Upstream::new(spec, &resolver, &client(), Some(&upstream)).unwrap()
    };
    assert!(refused(&reloaded(breaker)), "what has not changed lives on");
    assert!(!refused(&reloaded(BreakerSpec { probes: 1, ..breaker })), "other rules, another breaker");
}

#[test]
fn answers_the_client_is_to_blame_for_are_good_ones() {
    let breaker = BreakerSpec { min_requests: 1, ..BreakerSpec::default() };
    let upstream =
        make(UpstreamSpec { breaker: Some(breaker), ..with_passive(spec(Balance::RoundRobin, &THREE)) });
    for status in [404, 429, 499] {
        let mut lease = upstream.pick(None, &[]).unwrap();
        upstream.report(&mut lease, Some(Trouble::Status(status)), Instant::now());
    }
    assert!(upstream.breaker().unwrap().is_closed());
}
