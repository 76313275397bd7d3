//! Nodes that count for themselves and exchange.

use super::*;
use crate::store::redis::fast::{Fast, bound};
use crate::store::{Cycle, TimeZone, Unit};
use crate::tasks::Task;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

const SYNC: Duration = Duration::from_millis(100);
const NODES: usize = 4;

/// A node of its own: a store, its exchange, and what keeps both running.
struct Node {
    fast: Arc<Fast>,
    _supervisor: Supervisor,
}

impl Node {
    async fn start(server: &Server, sync: Duration) -> Self {
        let store = Arc::new(RedisStore::new(&spec(&server.url())).unwrap());
        let fast = Fast::new(Arc::clone(&store), sync, 10_000);
        let supervisor = Supervisor::new(Handle::current());
        let mut tasks = store.tasks().to_vec();
        tasks.push(Arc::clone(&fast) as Arc<dyn Task>);
        supervisor.adopt(&tasks);
        assert!(store.ready(PATIENCE).await);
        Node { fast, _supervisor: supervisor }
    }
}

fn day(count: u64) -> Limit {
    let cycle = Cycle::Calendar(Unit::Day, TimeZone("UTC".into()));
    Limit::new("day".into(), Rule::Quota { count, cycle, soft: false })
}

/// All nodes ask for as much as they can get; what they get together, and how long it took.
async fn grab(nodes: &[Node], limit: &Limit, time: Duration) -> (u64, Duration) {
    let granted = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let clients: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (fast, limit, granted) = (Arc::clone(&node.fast), limit.clone(), Arc::clone(&granted));
            tokio::spawn(async move {
                while begin.elapsed() < time {
                    // An exchange may be late on a busy machine; then nothing is granted.
                    if fast.take(&[demand(&limit, "k")]).await.is_ok_and(|outcomes| outcomes[0].granted) {
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    (granted.load(Ordering::Relaxed), begin.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_exceeded_by_no_more_than_the_bound() {
    let server = Server::start(&[]).await;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Node::start(&server, SYNC).await);
    }
    let limit = rate("fast", 100, 1, 20);
    let (granted, time) = grab(&nodes, &limit, Duration::from_secs(3)).await;
    let exact = 20.0 + 100.0 * time.as_secs_f64();
    let bound = bound(&limit.rule, SYNC, NODES as u64);
    assert_eq!(bound, 3 * (20 + 20));
    assert!(granted as f64 <= exact + bound as f64, "{granted} of {exact} and {bound}");
    assert!(granted >= 200, "all that was there in two of three seconds, not {granted}");

    // What was too much is paid back: nothing is forgotten however long it goes on.
    let (more, time) = grab(&nodes, &limit, Duration::from_secs(3)).await;
    let both = (granted + more) as f64;
    assert!(both <= exact + 100.0 * time.as_secs_f64() + bound as f64 + 10.0, "{both}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_used_up_and_exceeded_by_no_more_than_the_bound() {
    let server = Server::start(&[]).await;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Node::start(&server, SYNC).await);
    }
    let quota = day(500);
    let (granted, _) = grab(&nodes, &quota, Duration::from_secs(3)).await;
    let bound = bound(&quota.rule, SYNC, NODES as u64);
    assert_eq!(bound, 3 * 5);
    assert!((500..=500 + bound).contains(&granted), "{granted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_exact_and_counts_all_or_nothing() {
    let server = Server::start(&[]).await;
    let node = Node::start(&server, SYNC).await;
    let (narrow, wide, quota) = (rate("narrow", 1, 3600, 3), rate("wide", 1, 3600, 10), day(100));
    let demands = [demand(&wide, "k"), demand(&narrow, "k"), demand(&quota, "k")];
    for left in [2, 1, 0] {
        let outcomes = node.fast.take(&demands).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.granted));
        assert_eq!((outcomes[1].remaining, outcomes[2].used), (left, 3 - left));
    }
    for _ in 0..3 {
        let outcomes = node.fast.take(&demands).await.unwrap();
        assert!(!outcomes[1].granted && outcomes[1].retry_after > Duration::from_secs(3500));
        assert_eq!((outcomes[0].remaining, outcomes[2].used), (7, 3));
    }
    // A counter asked for twice in a request is exchanged once.
    let tight = Limit::new("tight".into(), day(40).rule);
    for used in (0..40).step_by(2) {
        let outcomes = node.fast.take(&[demand(&tight, "k"), demand(&tight, "k")]).await;
        assert!(outcomes.is_ok_and(|outcomes| outcomes[1].granted && outcomes[1].used == used + 2), "{used}");
    }
    assert!(!node.fast.take(&[demand(&tight, "k")]).await.unwrap()[0].granted);

    // Another node learns it with its first exchange.
    let other = Node::start(&server, SYNC).await;
    other.fast.take(&demands).await.unwrap();
    let learned = async {
        while other.fast.take(&demands).await.is_ok_and(|outcomes| outcomes[1].granted) {
            tokio::time::sleep(SYNC).await;
        }
    };
    tokio::time::timeout(PATIENCE, learned).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_it_says_so_before_the_bound_is_broken() {
    let mut server = Server::start(&[]).await;
    let node = Node::start(&server, SYNC).await;
    let limit = rate("fast", 1000, 1, 100);
    assert!(node.fast.take(&[demand(&limit, "k")]).await.is_ok());
    server.stop();
    let begin = Instant::now();
    let mut granted = 0;
    let fails = async {
        while node.fast.take(&[demand(&limit, "k")]).await.is_ok_and(|outcomes| outcomes[0].granted) {
            granted += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fails).await.expect("goes on without Redis");
    assert!(begin.elapsed() >= SYNC && granted <= bound(&limit.rule, SYNC, 2), "{granted}");
    assert!(node.fast.try_take(crate::store::memory::now(), &[demand(&limit, "k")]).is_none());

    server.start_again().await;
    let works = async {
        while node.fast.take(&[demand(&limit, "k")]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("no recovery");
}

#[test]
fn the_bound_is_what_a_node_can_grant_untold() {
    let limit = rate("a", 10, 1, 5);
    assert_eq!(bound(&limit.rule, Duration::from_millis(100), 1), 0);
    assert_eq!(bound(&limit.rule, Duration::from_millis(100), 2), 5 + 2);
    assert_eq!(bound(&limit.rule, Duration::from_millis(500), 11), 10 * (5 + 10));
    assert_eq!(bound(&day(10).rule, Duration::from_millis(100), 3), 2);
    assert_eq!(bound(&day(10_000).rule, Duration::from_millis(100), 3), 200);
}
