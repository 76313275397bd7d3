//! The generator of the load tests: requests at a fixed rate, measured from when they were due, and WebSocket frames.
//!
//! One thread for each connection, blocking: a thread that sleeps until a request is due wakes within microseconds, where
//! timers of an event loop count in milliseconds.

mod connection;
mod histogram;
mod load;
mod plan;
mod websocket;

use connection::Opener;
use load::{Counts, Schedule};
use parking_lot::Mutex;
use plan::{HELP, Kind, Plan};
use serde_json::Value;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Time for all threads to stand ready before the first request is due.
const LEAD: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With nowhere to complain, the exit code still tells.
            writeln!(io::stderr(), "load-generator: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let Some(plan) = Plan::parse(std::env::args().skip(1))? else {
        return io::stdout().write_all(HELP.as_bytes());
    };
    // Threads inherit it: without, the kernel may let each sleep 50 µs too long. Where it cannot be set, `late_p99` tells.
    std::fs::write("/proc/self/timerslack_ns", "1").unwrap_or_default();
    let (opener, requests) = (Opener::new(&plan)?, plan.requests()?);
    let start = Instant::now() + LEAD;
    let schedule = Schedule::new(start, plan.rate, plan.length);
    let shares: Vec<_> = (0..plan.connections).map(|_| Mutex::new(Counts::default())).collect();
    let (done, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        for share in &shares {
            let (plan, opener, requests, schedule, done) =
                (&plan, &opener, &requests, &schedule, done.clone());
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, move || {
                match plan.kind {
                    Kind::Http => load::paced(plan, opener, requests, schedule, share),
                    Kind::WebSocket => websocket::echoed(plan, opener, start + plan.length, share),
                }
                drop(done);
            })?;
        }
        drop(done);
        report(&plan, &shares, start, &ended)
    })
}

/// A line for each interval, if wanted, and at the end one for everything.
fn report(
    plan: &Plan,
    shares: &[Mutex<Counts>],
    start: Instant,
    ended: &mpsc::Receiver<()>,
) -> io::Result<()> {
    let mut all = Counts::default();
    let mut begin = start;
    loop {
        // Nothing is ever sent: what it waits for is that the last thread lets go.
        let over = match plan.interval {
            Some(interval) => !matches!(ended.recv_timeout(interval), Err(mpsc::RecvTimeoutError::Timeout)),
            None => ended.recv().is_err(),
        };
        let part = collected(shares);
        all.merge(&part);
        if over {
            return print(&all.report(start.elapsed().as_secs_f64()));
        }
        print(&part.report(begin.elapsed().as_secs_f64()))?;
        begin = Instant::now();
    }
}

/// What the threads have counted since the last time.
fn collected(shares: &[Mutex<Counts>]) -> Counts {
    let mut sum = Counts::default();
    for share in shares {
        sum.merge(&std::mem::take(&mut *share.lock()));
    }
    sum
}

fn print(report: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{report}")?;
    out.flush()
}
