//! What is granted.

use super::*;
use crate::store::memory::Memory;
use crate::store::{Cycle, Date, Outcomes, TimeZone, Unit};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

const NOW: u64 = 1_790_000_000_000_000;
const HOUR: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
struct Ask {
    after: u64,
    /// Then on to the next multiple of it, because it is at edges that two clocks differ.
    edge: u64,
    /// How far the clock of this machine is behind that of the server, less an hour.
    behind: u64,
    /// Limit, key, cost, shadow.
    wants: Vec<(usize, u8, u32, bool)>,
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let count = prop_oneof![1_u32..50, 1_u32..=1_000_000, Just(u32::MAX)];
    let period = prop_oneof![Just(1_u64), Just(60), Just(86_400), 1_u64..=366 * 86_400];
    let rate = (count, period, prop_oneof![1_u32..10, 1_u32..50_000, Just(u32::MAX)])
        .prop_map(|(count, period, burst)| Rule::Rate { count, period: Duration::from_secs(period), burst });
    let unit = prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month]);
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kathmandu"]);
    let date = Date { year: 2026, month: 1, day: 31 };
    let cycle = prop_oneof![
        (unit.clone(), zone.clone()).prop_map(|(unit, zone)| Cycle::Calendar(unit, TimeZone(zone.into()))),
        (unit, zone).prop_map(move |(unit, zone)| Cycle::Anchored(unit, TimeZone(zone.into()), date)),
        (1_u64..1_000_000).prop_map(|seconds| Cycle::Rolling(Duration::from_secs(seconds))),
        Just(Cycle::Rolling(Duration::from_secs(64))),
    ];
    let count = prop_oneof![1_u64..10, 1_u64..10_000, Just(u64::MAX)];
    let quota = (count, cycle, prop::bool::weighted(0.2)).prop_map(|(count, cycle, soft)| Rule::Quota {
        count,
        cycle,
        soft,
    });
    prop::collection::vec(prop_oneof![rate, quota], 1..5)
}

fn schedule() -> impl Strategy<Value = Vec<Ask>> {
    let after = prop_oneof![
        Just(0_u64),
        0_u64..10,
        0_u64..100_000,
        0_u64..100_000_000,
        0_u64..10_000_000_000,
        0_u64..40 * 86_400_000_000,
    ];
    let cost = prop_oneof![5 => 1_u32..4, 1 => 1_u32..20_000, 1 => Just(u32::MAX)];
    let want = (0_usize..8, 0_u8..2, cost, prop::bool::weighted(0.2));
    let edge = prop::sample::select(vec![1_u64, 1, 1, 1_000_000, 1_000_000, 86_400_000_000]);
    let behind = prop_oneof![Just(HOUR), HOUR - 5..HOUR + 5, 0..2 * HOUR];
    let ask = (after, edge, behind, prop::collection::vec(want, 1..5))
        .prop_map(|(after, edge, behind, wants)| Ask { after, edge, behind, wants });
    prop::collection::vec(ask, 1..60)
}

/// The same schedule has the same outcomes in Redis and in memory, to the microsecond.
#[test]
fn redis_and_memory_say_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_server, store, _supervisor) = runtime.block_on(async {
        let server = Server::start(&[]).await;
        let mut spec = spec(&server.url());
        // Nothing here is about waiting.
        spec.timeout = Positive::new(Span::millis(10_000));
        let (store, supervisor) = connect(&spec).await;
        (server, store, supervisor)
    });
    let case = AtomicU64::new(0);
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(rules(), schedule()), |(rules, schedule)| {
            let case = case.fetch_add(1, Ordering::Relaxed);
            let limit =
                |(at, rule): (usize, Rule)| Limit::new(format!("case {case} limit {at}").into(), rule);
            let limits: Vec<Limit> = rules.into_iter().enumerate().map(limit).collect();
            runtime.block_on(compare(&store, &limits, &schedule))
        })
        .unwrap();
}

async fn compare(store: &RedisStore, limits: &[Limit], schedule: &[Ask]) -> Result<(), TestCaseError> {
    let memory = Memory::new(100_000);
    let mut now = NOW;
    for (step, ask) in schedule.iter().enumerate() {
        now = (now + ask.after).next_multiple_of(ask.edge);
        let demands: Vec<Demand<'_>> = ask
            .wants
            .iter()
            .map(|(limit, key, cost, shadow)| Demand {
                limit: &limits[limit % limits.len()],
                key: if *key == 0 { b"" } else { b"\xff\x00 {}\r\n" },
                cost: *cost,
                shadow: *shadow,
            })
            .collect();
        let there = store.take_at(&demands, now + HOUR - ask.behind, now).await;
        let here: Outcomes = memory.take(now, &demands);
        prop_assert_eq!(there, Ok(here), "step {} of {:?}", step, schedule);
    }
    Ok(())
}

/// Two stores, four clients, no more than the law allows and nearly all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_several_stores_share_one_limit() {
    let server = Server::start(&[]).await;
    let (one, _one) = connect(&spec(&server.url())).await;
    let (two, _two) = connect(&spec(&server.url())).await;
    let begin = Instant::now();
    let clients = [&one, &two, &one, &two].map(|store| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let (limit, quota) = (rate("shared", 200, 1, 50), day("day", 300));
            let mut granted = (0, 0);
            while begin.elapsed() < Duration::from_millis(1500) {
                let outcomes = store.take(&[demand(&limit, "k")]).await.unwrap();
                granted.0 += u64::from(outcomes[0].granted);
                granted.1 += u64::from(store.take(&[demand(&quota, "k")]).await.unwrap()[0].granted);
            }
            granted
        })
    });
    let (mut rate, mut quota) = (0, 0);
    for client in clients {
        let granted = client.await.unwrap();
        (rate, quota) = (rate + granted.0, quota + granted.1);
    }
    let most = 50.0 + 200.0 * begin.elapsed().as_secs_f64();
    assert!(rate as f64 <= most, "{rate} of {most}");
    assert!(rate >= 50 + 200, "all that was there in the first second, not {rate}");
    assert_eq!(quota, 300);
    assert_eq!(
        one.counters().calls.load(Ordering::Relaxed) > 0,
        one.counters().errors(StoreError::Timeout) == 0
    );
}

fn day(name: &str, count: u64) -> Limit {
    let cycle = Cycle::Calendar(Unit::Day, TimeZone("UTC".into()));
    Limit::new(name.into(), Rule::Quota { count, cycle, soft: false })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_burst_passes_the_next_does_not_and_one_refusal_counts_nothing() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&spec(&server.url())).await;
    let (slow, wide) = (rate("slow", 1, 3600, 3), rate("wide", 1, 3600, 100));
    let quota = day("day", 50);
    let demands = [demand(&wide, "k"), demand(&slow, "k"), demand(&quota, "k")];
    for left in [2, 1, 0] {
        let outcomes = store.take(&demands).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.granted));
        assert_eq!((outcomes[1].remaining, outcomes[2].used), (left, 3 - left));
    }
    for _ in 0..5 {
        let outcomes = store.take(&demands).await.unwrap();
        assert_eq!(outcomes.iter().map(|outcome| outcome.granted).collect::<Vec<_>>(), [true, false, true]);
        assert!(outcomes[1].retry_after > Duration::from_secs(3500));
        assert_eq!((outcomes[0].remaining, outcomes[2].remaining, outcomes[2].used), (97, 47, 3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_vanish_and_a_raised_limit_keeps_nobody_out() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&spec(&server.url())).await;
    take(&store, &rate("quick", 1000, 1, 10), "k").await.unwrap();
    take(&store, &day("day", 10), "k").await.unwrap();
    let cycle = Cycle::Rolling(Duration::from_secs(64));
    let rolling = Limit::new("minute".into(), Rule::Quota { count: 10, cycle, soft: false });
    take(&store, &rolling, "k").await.unwrap();
    let slow = rate("slow", 1, 86_400, 2);
    take(&store, &slow, "k").await.unwrap();
    take(&store, &slow, "k").await.unwrap();
    let keys = server.cli(&["--no-raw", "keys", "tg:{tollgate}:?:*"]);
    assert_eq!(keys.lines().count(), 4, "{keys}");
    assert!(keys.contains(r#""tg:{tollgate}:r:quick\xffk""#), "{keys}");
    for (key, least, most) in [
        ("r:quick", 1, 1_100),
        ("q:day", 1, 86_400_000 + 1_100),
        ("q:minute", 64_000, 65_000 + 1_100),
        ("r:slow", 86_400_000, 2 * 86_400_000 + 1_100),
    ] {
        let script = format!("return redis.call('PTTL', 'tg:{{tollgate}}:{key}\\255k')");
        let left: i64 = server.cli(&["eval", &script, "0"]).trim().parse().unwrap();
        assert!((least..=most).contains(&left), "{key}: {left}");
    }

    // Refused for now, but from now on the counter is one of the new limit.
    let raised = rate("slow", 20, 1, 2);
    assert!(!take(&store, &raised, "k").await.unwrap().granted);
    let granted = async {
        while !take(&store, &raised, "k").await.unwrap().granted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), granted).await.expect("kept out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_is_none_is_an_error_of_its_own_requests_only() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&spec(&server.url())).await;
    server.cli(&["eval", "return redis.call('LPUSH', 'tg:{tollgate}:r:a\\255k', 1)", "0"]);
    for _ in 0..20 {
        assert_eq!(take(&store, &rate("a", 1, 1, 1), "k").await, Err(StoreError::Refused));
    }
    assert!(take(&store, &rate("b", 1, 1, 1), "k").await.unwrap().granted);
    assert_eq!(store.up(), store.size());
}
