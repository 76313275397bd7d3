//! What is malformed or can be read in two ways is never forwarded, whoever sent it.
//!
//! The origin keeps every byte it got and reads it by the grammar and nothing else: what it cannot read so fails the test.

mod answers;
mod bodies;
mod corpus;
mod expect;
mod origin;
mod time;

use crate::harness::{DEADLINE, Gateway, Plan, Response, eventually};
use corpus::{Expected, Row};
use origin::Origin;
use std::time::Duration;

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
    let mut wrong = Vec::new();
    for row in &rows {
        if let Err(why) = try_row(row, &gateway, &origin) {
            wrong.push(format!(
                "{}: {why}\n    {:?}",
                row.name,
                String::from_utf8_lossy(&row.sent[..row.sent.len().min(300)])
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let counted = gateway.metric("tollgate_refused_requests_total");
    let refused = rows
        .iter()
        .filter(|row| matches!(row.expected, Expected::Refused(_, reason) if !OURS.contains(&reason)));
    assert!(counted as usize >= refused.count(), "all refusals are counted: {counted}");
}

/// Reasons of problems that are found when the route is looked for.
const OURS: [&str; 4] = ["bad-path", "bad-host", "method-not-allowed", "headers-too-large"];

fn try_row(row: &Row, gateway: &Gateway, origin: &Origin) -> Result<(), String> {
    origin.forget();
    let mut client = gateway.client();
    client.wire.give_up_after(Duration::from_secs(3));
    // What is refused early may not be read to its end.
    let _refused = client.wire.write(&row.sent);
    match &row.expected {
        Expected::Refused(status, reason) => {
            let response =
                Response::read(&mut client.wire, "GET").map_err(|error| format!("no answer: {error}"))?;
            let found = (response.status, reason_of(&response, gateway));
            if found != (*status, (*reason).to_owned()) {
                return Err(format!("answered {found:?}, not {:?}", (status, reason)));
            }
            let rest = client.wire.read_some();
            if rest.as_ref().is_ok_and(|rest| !rest.is_empty()) {
                return Err("more than one answer".to_owned());
            }
            // Part of a body may have been on its way; whole requests may not.
            match origin.received()? {
                whole if whole.is_empty() => Ok(()),
                whole => Err(format!("forwarded {whole:?}")),
            }
        }
        Expected::Forwarded(wanted) => {
            for one in wanted {
                let method = one.split(' ').next().unwrap_or_default();
                let response = Response::read(&mut client.wire, method)
                    .map_err(|error| format!("no answer: {error}"))?;
                if response.status != 200 {
                    return Err(format!("answered {}: {}", response.status, response.text()));
                }
            }
            let received = origin.received()?;
            if received != *wanted {
                return Err(format!("forwarded {received:?}, not {wanted:?}"));
            }
            Ok(())
        }
    }
}

/// From the log; of hundreds of lines only the one is looked at.
fn reason_of(response: &Response, gateway: &Gateway) -> String {
    let id = response.header("x-request-id").expect("every answer has an id").to_owned();
    assert!(!id.is_empty(), "every answer has an id");
    let find = || gateway.stdout_lines().into_iter().rev().find(|line| line.contains(&id));
    let line = eventually(DEADLINE, "a line in the log", find);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    line["reason"].as_str().unwrap_or_default().to_owned()
}
