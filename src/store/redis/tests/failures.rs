//! What happens when Redis does not.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_millis(50);
/// What a busy machine may add.
const MARGIN: Duration = Duration::from_millis(300);

fn quick(url: &str) -> document::Redis {
    document::Redis { timeout: Positive::new(Span(TIMEOUT)), ..spec(url) }
}

/// Clients that call all the time, and how long their calls took.
struct Load {
    done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Calls>>,
}

/// How long each took, and what came of it.
type Calls = Vec<(Duration, Result<Outcome, StoreError>)>;

impl Load {
    fn start(store: &Arc<RedisStore>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let client = |number: usize| {
            let (store, done) = (Arc::clone(store), Arc::clone(&done));
            tokio::spawn(async move {
                let (limit, key) = (rate("load", 1_000_000, 1, 1_000_000), number.to_string());
                let mut calls = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let result = take(&store, &limit, &key).await;
                    calls.push((begin.elapsed(), result));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                calls
            })
        };
        Load { done: Arc::clone(&done), clients: (0..4).map(client).collect() }
    }

    /// The errors that there were; no call may have taken longer than the time-out.
    async fn end(self) -> Vec<StoreError> {
        self.done.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for client in self.clients {
            calls.extend(client.await.unwrap());
        }
        let mut times: Vec<Duration> = calls.iter().map(|(time, _)| *time).collect();
        times.sort_unstable();
        let (p99, longest) = (times[times.len() * 99 / 100], times[times.len() - 1]);
        assert!(p99 <= TIMEOUT + MARGIN / 3, "p99 {p99:?}");
        assert!(longest <= TIMEOUT + MARGIN, "longest {longest:?}");
        assert!(calls.iter().any(|(_, result)| result.is_ok()));
        calls.into_iter().filter_map(|(_, result)| result.err()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted() {
    let mut server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&quick(&server.url())).await;
    let load = Load::start(&store);
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.stop();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(store.up(), 0);
    let begin = Instant::now();
    assert_eq!(take(&store, &rate("a", 1, 1, 1), "k").await, Err(StoreError::Open));
    assert!(begin.elapsed() < TIMEOUT, "an open breaker fails at once");

    server.start_again().await;
    recovered(&store, &rate("a", 1, 1, 1)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let errors = load.end().await;
    assert!(errors.contains(&StoreError::Open));
    assert!(store.counters().opened.load(Ordering::Relaxed) >= 1);
    assert!(store.counters().errors(StoreError::Open) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_for_two_seconds() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&quick(&server.url())).await;
    let load = Load::start(&store);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.up(), 0, "the breaker is open");
    server.signal(Signal::SIGCONT);
    recovered(&store, &rate("a", 1, 1, 1)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let errors = load.end().await;
    let timeouts = errors.iter().filter(|error| **error == StoreError::Timeout).count();
    // Five of each connection, and those that were under way when it was the fifth.
    assert!((5..=40).contains(&timeouts), "{timeouts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_and_somebody_who_says_nothing() {
    let nobody = Arc::new(RedisStore::new(&quick(&format!("redis://127.0.0.1:{}", free_port()))).unwrap());
    assert_eq!(take(&nobody, &rate("a", 1, 1, 1), "k").await, Err(StoreError::Open), "before any task");

    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let store = Arc::new(RedisStore::new(&quick(&url)).unwrap());
    let supervisor = Supervisor::new(Handle::current());
    supervisor.adopt(store.tasks());
    let begin = Instant::now();
    assert!(!store.ready(Duration::from_millis(300)).await);
    assert_eq!(take(&store, &rate("a", 1, 1, 1), "k").await, Err(StoreError::Open));
    assert!(begin.elapsed() < Duration::from_millis(300) + MARGIN);
    let begin = Instant::now();
    supervisor.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "stops in the middle of connecting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_so_many_wait() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&quick(&server.url())).await;
    let all = store.permits.acquire_many(u32::try_from(super::super::IN_FLIGHT).unwrap()).await.unwrap();
    assert_eq!(take(&store, &rate("a", 1, 1, 1), "k").await, Err(StoreError::Busy));
    drop(all);
    assert!(take(&store, &rate("a", 1, 1, 1), "k").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_script_is_sent_again_and_a_replica_is_left() {
    let server = Server::start(&[]).await;
    let (store, _supervisor) = connect(&spec(&server.url())).await;
    let limit = rate("a", 1000, 1, 1000);
    for _ in 0..3 {
        server.cli(&["script", "flush"]);
        assert!(take(&store, &limit, "k").await.unwrap().granted);
    }
    let other = Server::start(&[]).await;
    server.cli(&["replicaof", "127.0.0.1", &other.port.to_string()]);
    let left = async {
        while take(&store, &limit, "k").await != Err(StoreError::Open) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("still in service");
    server.cli(&["replicaof", "no", "one"]);
    recovered(&store, &limit).await;
}
