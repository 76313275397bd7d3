//! What is malformed or can be read in two ways is never forwarded, whoever sent it.
//!
//! The origin keeps every byte it got and reads it by the grammar and nothing else: what it cannot read so fails the test.

mod answers;
mod bodies;
mod corpus;
mod expect;
mod origin;
mod time;

use crate::harness::{DEADLINE, Gateway, Plan, Response, assert_eventually};
use corpus::{Expected, Row};
use origin::Origin;
use std::collections::HashMap;

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1], limits: { header_bytes: 4KiB, headers: 20, uri: 1KiB } } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { all: { auth: public, routes: { all: { match: "/**", request: { forwarded: none }, to: app } } } }
"#;

#[test]
fn nothing_ambiguous_is_forwarded() {
    let origin = Origin::start();
    let gateway = Plan::new(FRONT).with("app", origin.addr()).start();
    let rows = corpus::rows();
    assert!(rows.len() >= 200, "{} rows", rows.len());
    let found: Vec<_> = rows.iter().map(|row| try_row(row, &gateway, &origin)).collect();
    let reasons = reasons(&gateway, rows.iter().map(Row::answers).sum());
    let checked = rows.iter().zip(found).map(|(row, found)| {
        found.and_then(|id| check_reason(row, &id, &reasons)).map_err(|why| tell(row, &why))
    });
    let wrong: Vec<String> = checked.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let counted = gateway.metric("tollgate_refused_requests_total");
    let refused =
        |row: &&Row| matches!(row.expected, Expected::Refused(_, reason) if !OURS.contains(&reason));
    assert!(counted as usize >= rows.iter().filter(refused).count(), "all refusals are counted: {counted}");
}

/// Reasons of problems that are found when the route is looked for.
const OURS: [&str; 5] = ["bad-path", "bad-host", "bad-request", "method-not-allowed", "headers-too-large"];

fn tell(row: &Row, why: &str) -> String {
    format!("{}: {why}\n    {:?}", row.name, String::from_utf8_lossy(&row.sent[..row.sent.len().min(300)]))
}

/// What became of a row; gives the id of its last answer.
fn try_row(row: &Row, gateway: &Gateway, origin: &Origin) -> Result<String, String> {
    origin.forget();
    let mut client = gateway.client();
    // What is refused early may not be read to its end.
    let _refused = client.wire.write(&row.sent);
    let mut answer = |method: &str, status: u16| -> Result<Response, String> {
        let response =
            Response::read(&mut client.wire, method).map_err(|error| format!("no answer: {error}"))?;
        match response.status == status {
            true => Ok(response),
            false => Err(format!("answered {}: {}", response.status, response.text())),
        }
    };
    let (last, wanted) = match &row.expected {
        // Part of a body may have been on its way; whole requests may not.
        Expected::Refused(status, _) => (answer("GET", *status)?, &Vec::new()),
        Expected::Forwarded(wanted) => {
            let mut last = Response::default();
            for one in wanted {
                last = answer(one.split(' ').next().unwrap_or_default(), 200)?;
            }
            (last, wanted)
        }
    };
    // What only has no route to go by leaves no doubt where the next request begins.
    if !last.kept_alive && client.wire.read_some().is_ok_and(|rest| !rest.is_empty()) {
        return Err("more than one answer".to_owned());
    }
    let received = origin.received()?;
    if received != *wanted {
        return Err(format!("forwarded {received:?}, not {wanted:?}"));
    }
    last.header("x-request-id").map(str::to_owned).ok_or("an answer without an id".to_owned())
}

/// The reasons in the log by the ids of their requests.
fn reasons(gateway: &Gateway, least: usize) -> HashMap<String, String> {
    let word = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert_eventually(DEADLINE, "the lines of all requests", || {
        gateway.stdout_lines().iter().filter(|line| line.starts_with('{')).count() >= least
    });
    gateway.access_log().iter().map(|line| (word(line, "request_id"), word(line, "reason"))).collect()
}

fn check_reason(row: &Row, id: &str, reasons: &HashMap<String, String>) -> Result<(), String> {
    let wanted = match row.expected {
        Expected::Refused(_, reason) => reason,
        Expected::Forwarded(_) => "",
    };
    match reasons.get(id) {
        Some(reason) if reason == wanted => Ok(()),
        found => Err(format!("logged as {found:?}, not {wanted:?}")),
    }
}
