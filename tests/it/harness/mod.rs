//! What the tests are written with: a running gateway, scripted upstreams, clients that see every byte.
//!
//! Everything listens on ephemeral loopback ports, stops what it started when dropped, and waits for conditions with a
//! deadline instead of sleeping.

mod answer;
mod checks;
mod client;
mod command;
mod dns;
mod gateway;
mod h2_client;
pub mod h2_raw;
mod h2_target;
mod h2_upstream;
mod idp;
mod message;
mod ports;
mod redis;
mod tls;
mod tls_client;
mod tokens;
mod upstream;
mod websocket;
mod wire;

pub use answer::{Answer, Fault};
pub use client::{Ask, Client};
pub use command::{Ran, tollgate, tollgate_in};
pub use dns::{DnsMode, DnsServer};
pub use gateway::{Gateway, Plan, resident_bytes};
pub use h2_client::H2Client;
pub use h2_target::{Call, H2Target};
pub use h2_upstream::{H2Answer, H2Upstream, grpc_message};
pub use idp::{CLIENT, Idp, Says};
pub use message::{Headers, Request, Response};
pub use ports::{Reserved, share_a_port};
pub use redis::Redis;
pub use tls::{Authority, Leaf};
pub use tls_client::TlsDial;
pub use tokens::{SigningKey, basic, now, with};
pub use upstream::{Gate, Upstream};
pub use websocket::{GRANT, handshake};
pub use wire::Wire;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long anything may take before a test calls it broken. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Tells threads to stop when it goes, also when that is because of a failed assertion: a scope waits for its threads.
pub struct StopAtEnd<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits until `condition` is true; panics with `what` when the deadline passes first.
pub fn assert_eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually(deadline, what, || condition().then_some(()));
}

/// Waits until `find` finds something, and gives it; panics with `what` when the deadline passes first.
pub fn eventually<T>(deadline: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        // Not a sleep for luck: only the pause between two looks.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Raises the soft limit of open files to the hard one: every test holds several sockets, and they run side by side.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    static RAISED: LazyLock<()> = LazyLock::new(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    });
    LazyLock::force(&RAISED);
}

/// The runtime that drives HTTP/2 peers; scripted HTTP/1.1 peers use plain threads.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        raise_file_limit();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    &RUNTIME
}
