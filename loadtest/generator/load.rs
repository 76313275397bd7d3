//! The threads that make the load, and what they count.

use crate::connection::{Broken, Connection, Opener};
use crate::histogram::{Histogram, microseconds};
use crate::plan::Plan;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After the last request is due, the backlog is worked off for so long.
const GRACE: Duration = Duration::from_secs(10);

/// What has come of the requests so far.
#[derive(Clone, Default)]
pub struct Counts {
    /// From when a request was due to the last byte of its response.
    pub latency: Histogram,
    /// From when it was sent: what a generator that waits for its turn would report.
    pub service: Histogram,
    /// How much too late this program itself was, with a free connection at hand.
    pub late: Histogram,
    /// Sent again, since the kept connection had been closed unused.
    pub retried: u64,
    /// Not answered, or not as wanted, by reason.
    pub failed: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Counts) {
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        self.late.merge(&other.late);
        self.retried += other.retried;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, reason: String) {
        *self.failed.entry(reason).or_default() += 1;
    }

    /// As one line of JSON, durations in microseconds.
    pub fn report(&self, seconds: f64) -> Value {
        let failed: u64 = self.failed.values().sum();
        let rate = self.latency.total() as f64 / seconds.max(0.001);
        json!({
            "requests": self.latency.total(), "seconds": seconds, "per_second": rate.round(),
            "failed": failed, "reasons": self.failed, "retried": self.retried,
            "latency": self.latency.report(), "service": self.service.report(),
            "late_p99": microseconds(self.late.percentile(99.0)),
        })
    }
}

/// The schedule that all threads share.
pub struct Schedule {
    start: Instant,
    rate: f64,
    next: AtomicU64,
    total: u64,
}

impl Schedule {
    /// Requests become due from `start` on, one every `1 / rate` seconds.
    pub fn new(start: Instant, rate: f64, length: Duration) -> Schedule {
        let total = (rate * length.as_secs_f64()).round() as u64;
        Schedule { start, rate, next: AtomicU64::new(0), total }
    }

    /// The number of the next request that nobody has taken, and when it is due.
    fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs_f64(number as f64 / self.rate);
        (number < self.total).then_some((number, due))
    }

    /// When the backlog of a server that is too slow is given up.
    fn end(&self) -> Instant {
        let length = Duration::from_secs_f64(self.total as f64 / self.rate);
        self.start + length + GRACE
    }
}

/// Takes requests from the schedule until none is left, on one connection at a time.
pub fn paced(
    plan: &Plan,
    opener: &Opener,
    requests: &[Vec<u8>],
    schedule: &Schedule,
    counts: &Mutex<Counts>,
) {
    let mut connection = None;
    while let Some((number, due)) = schedule.take() {
        let free = Instant::now();
        if free > schedule.end() {
            counts.lock().fail("not sent: the server is too slow for the rate".to_owned());
            continue;
        }
        wait_until(due);
        let sent = Instant::now();
        let turn = usize::try_from(number).unwrap_or_default() % requests.len().max(1);
        let result = ask(plan, opener, requests.get(turn).map_or(&[], Vec::as_slice), &mut connection);
        let done = Instant::now();
        let mut counts = counts.lock();
        match result {
            Ok(retried) => {
                counts.latency.record(done - due);
                counts.service.record(done - sent);
                counts.retried += u64::from(retried);
            }
            Err(error) => counts.fail(error.to_string()),
        }
        counts.late.record(sent - due.max(free).min(sent));
    }
}

/// One request, on the kept connection or a new one; says whether it had to be sent twice.
fn ask(plan: &Plan, opener: &Opener, request: &[u8], kept: &mut Option<Connection>) -> io::Result<bool> {
    let mut retried = false;
    let (response, connection) = loop {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => opener.open()?,
        };
        match connection.exchange(request) {
            Ok(response) => break (response, connection),
            Err(Broken::Stale) => retried = true,
            Err(Broken::Failed(error)) => return Err(error),
        }
    };
    if response.keeps && !plan.new {
        *kept = Some(connection);
    }
    if response.status != plan.status {
        return Err(io::Error::other(format!("status {}", response.status)));
    }
    if plan.bytes.is_some_and(|bytes| bytes != response.bytes) {
        return Err(io::Error::other(format!("a body of {} bytes", response.bytes)));
    }
    Ok(retried)
}

#[expect(
    clippy::disallowed_methods,
    reason = "every connection has a thread of its own: nothing else is held up"
)]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    const STALL: Duration = Duration::from_millis(600);

    /// A server that answers at once, but once does nothing at all for a while, for nobody.
    fn stalling_server(begin: Instant) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gate = Arc::new(Mutex::new(()));
        let stalled = gate.clone();
        std::thread::spawn(move || {
            wait_until(begin + Duration::from_millis(500));
            let _held = stalled.lock();
            wait_until(Instant::now() + STALL);
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let gate = gate.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &gate));
            }
        });
        address
    }

    fn answer(mut stream: TcpStream, gate: &Mutex<()>) {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            drop(gate.lock());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    }

    #[test]
    fn a_stall_is_told_to_every_request_that_was_due_during_it() {
        let begin = Instant::now();
        let url = format!("http://{}/", stalling_server(begin));
        let line = format!("http {url} --rate 500 --seconds 2 --connections 4");
        let plan = Plan::parse(line.split(' ').map(str::to_owned)).unwrap().unwrap();
        let (opener, requests) = (Opener::new(&plan).unwrap(), plan.requests().unwrap());
        let schedule = Schedule::new(begin, plan.rate, plan.length);
        let counts = Mutex::new(Counts::default());
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| paced(&plan, &opener, &requests, &schedule, &counts))));
        });
        let counts = counts.into_inner();
        assert_eq!((counts.latency.total(), counts.failed.len()), (1000, 0), "{:?}", counts.failed);
        // 300 of 1,000 were due during the stall, 150 of them more than half of it before its end.
        let slow = counts.latency.percentile(86.0);
        assert!(slow >= STALL * 2 / 5, "only {slow:?} at 86 %");
        assert!(counts.latency.percentile(100.0) >= STALL * 9 / 10);
        // One that counts from when it sends sees a stall once for each connection.
        let forgetful = counts.service.percentile(90.0);
        assert!(forgetful < STALL / 2, "{forgetful:?}");
    }
}
