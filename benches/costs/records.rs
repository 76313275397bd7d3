//! The end of a request: counted, timed, and written down as a line of JSON.

use super::case::{Case, Work};
use super::documents::{Built, CHAIN, built};
use super::requests::{Told, answered, request};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tollgate::exchange::RequestHead;
use tollgate::observe::access_log::{AccessLog, Target};
use tollgate::observe::{Record, record};

/// Fewer lines than the buffer of a thread holds: it is emptied between two measurements.
pub const RECORDS: usize = 1_000;

/// With and without a log.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, route, logged| {
        Case::new(format!("record/{name}"), RECORDS, move || recorded(route, logged))
    };
    vec![
        case("metrics", "plain", false),
        case("metrics-log", "plain", true),
        case("metrics-log-caller", "chain", true),
    ]
}

fn recorded(route: &str, logged: bool) -> Result<Work, String> {
    let built = built(CHAIN)?;
    let mut request = request(route)?;
    let mut told = answered(&built, &mut request).ok_or("the request does not get through")?;
    let log = if logged { Some(log()?) } else { None };
    let emptied = log.clone();
    Ok(Work {
        one: Box::new(move |_| {
            // How long a request took decides which bucket of a histogram is looked for.
            told.exchange.started = Instant::now();
            end(&built, &request, &told, log.as_deref());
        }),
        settle: Box::new(move || empty(emptied.as_deref())),
    })
}

/// A log that goes nowhere.
pub fn log() -> Result<Arc<AccessLog>, String> {
    AccessLog::open(Target::File(PathBuf::from("/dev/null"))).map_err(|error| error.to_string())
}

/// What the log holds is written; nothing of it may have been lost, or less was measured than it seems.
pub fn empty(log: Option<&AccessLog>) {
    if let Some(log) = log {
        assert!(log.flush(Duration::from_secs(30)) && log.dropped() == 0);
    }
}

/// Records a request.
pub fn end(built: &Built, request: &RequestHead, told: &Told, log: Option<&AccessLog>) {
    let (snapshot, route) = (&built.snapshot, &told.route);
    let line = Record {
        exchange: &told.exchange,
        request,
        route: Some(&route.fields),
        bytes_out: 1024,
        listener: "web",
    };
    record(&line, &built.shared.metrics, &route.metrics, snapshot.telemetry.log.as_ref(), log);
}
