//! What changes the running process: reload, another configuration, upgrade.
//!
//! Whoever may change what a gateway does may do nearly everything, so these are open only over a Unix socket, which the file
//! system guards, or with a token. A page in a browser on the same machine reaches loopback, too.

use super::{App, json, not_allowed, text, typed};
use crate::listen::connection::facts;
use crate::reload::{Refused, SUCCESSOR_TIME, Wanted};
use crate::value::{
    counted,
    query::{decoded_text, is_named, split_pair},
};
use http::header::IF_MATCH;
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest configuration that is taken.
const LARGEST: usize = 16 << 20;

/// A change that is asked for by POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Reload,
    Upgrade,
}

/// Why a change was not made.
#[derive(Serialize)]
struct Failure {
    error: String,
    /// What is wrong with the configuration, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<String>,
}

#[derive(Serialize)]
struct Upgraded {
    successor: u32,
}

impl Change {
    pub(super) fn of(path: &str) -> Option<Change> {
        match path {
            "/reload" => Some(Change::Reload),
            "/upgrade" => Some(Change::Upgrade),
            _ => None,
        }
    }
}

impl App {
    pub(super) async fn change(
        &self,
        change: Change,
        session: &ServerSession,
        query: &str,
    ) -> Response<Vec<u8>> {
        if session.req_header().method != Method::POST {
            return not_allowed("POST");
        }
        if !self.may_change(session) {
            return forbidden();
        }
        match change {
            Change::Reload => {
                let wanted = Wanted { text: None, dry_run: is_set(query, "dry_run") };
                self.reload(wanted).await
            }
            Change::Upgrade => self.upgrade(session, query).await,
        }
    }

    /// Another configuration in place of the file's, if the one that runs is the one that was looked at. The file is written,
    /// too, unless the change is to last only until the next reload (`?ephemeral=1`).
    pub(super) async fn put_config(&self, session: &mut ServerSession, query: &str) -> Response<Vec<u8>> {
        if !self.may_change(session) {
            return forbidden();
        }
        // Two that have looked at the same configuration must not both replace it.
        let _alone = self.putting.lock().await;
        let hash = self.state.running.live.load().loaded.hash.clone();
        match session.req_header().headers.get(IF_MATCH).map(|tag| tag.as_bytes()) {
            None => {
                let help = format!("say which configuration is to be replaced: If-Match: \"{hash}\"");
                return failure(StatusCode::PRECONDITION_REQUIRED, help, None);
            }
            Some(tag) if tag != format!("\"{hash}\"").as_bytes() => {
                let why = format!("the running configuration is {hash} by now");
                return failure(StatusCode::PRECONDITION_FAILED, why, None);
            }
            Some(_) => {}
        }
        let text = match body(session).await {
            Ok(text) => text,
            Err(response) => return response,
        };
        let looked_at = Wanted { text: Some(text.clone()), dry_run: true };
        if is_set(query, "dry_run") {
            return self.reload(looked_at).await;
        }
        if is_set(query, "ephemeral") {
            return self.reload(Wanted { text: Some(text), dry_run: false }).await;
        }
        // Nothing that would be refused is written.
        let checked = self.reload(looked_at).await;
        if checked.status() != StatusCode::OK {
            return checked;
        }
        let path = self.state.running.path.clone();
        if let Err(error) = write_whole(&path, &text) {
            let why =
                format!("{} cannot be written: {error}; ?ephemeral=1 changes only what runs", path.display());
            return failure(StatusCode::CONFLICT, why, None);
        }
        self.reload(Wanted::default()).await
    }

    async fn reload(&self, wanted: Wanted) -> Response<Vec<u8>> {
        match self.state.running.reload(wanted).await {
            Ok(reloaded) => json(&reloaded),
            Err(Refused::Invalid(errors, findings)) => {
                let why = format!("the configuration has {}", counted(errors, "error"));
                failure(StatusCode::UNPROCESSABLE_ENTITY, why, Some(findings))
            }
            Err(Refused::Failed(why)) => failure(StatusCode::CONFLICT, why, None),
        }
    }

    async fn upgrade(&self, session: &ServerSession, query: &str) -> Response<Vec<u8>> {
        let binary = parameter(query, "binary").map(PathBuf::from);
        if binary.is_some() && !is_local(session) {
            let why = "which binary is run can only be said over the Unix socket of the admin listener";
            return failure(StatusCode::FORBIDDEN, why.to_owned(), None);
        }
        let within = parameter(query, "within").and_then(|seconds| seconds.parse().ok());
        let within = within.map_or(SUCCESSOR_TIME, Duration::from_secs);
        match self.state.running.succeed(binary, within).await {
            Ok(successor) => json(&Upgraded { successor }),
            Err(why) => failure(StatusCode::CONFLICT, why, None),
        }
    }

    pub(super) fn may_change(&self, session: &ServerSession) -> bool {
        is_local(session) || !self.state.running.live.load().settings.tokens.is_empty()
    }
}

fn is_local(session: &ServerSession) -> bool {
    facts(session.digest()).is_some_and(|facts| facts.peer.is_none())
}

pub(super) fn forbidden() -> Response<Vec<u8>> {
    let why = "changes are taken over a Unix socket, or with a token: set `admin: { tokens: … }`";
    failure(StatusCode::FORBIDDEN, why.to_owned(), None)
}

pub(super) fn failure(status: StatusCode, error: String, findings: Option<String>) -> Response<Vec<u8>> {
    match serde_json::to_vec_pretty(&Failure { error, findings }) {
        Ok(mut body) => {
            body.push(b'\n');
            typed(status, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

pub(super) async fn body(session: &mut ServerSession) -> Result<String, Response<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) if bytes.len() + piece.len() <= LARGEST => bytes.extend_from_slice(&piece),
            Ok(Some(_)) => {
                let why = format!("more than {} MiB", LARGEST >> 20);
                return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, why, None));
            }
            Ok(None) => break,
            Err(error) => return Err(failure(StatusCode::BAD_REQUEST, error.to_string(), None)),
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| failure(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned(), None))
}

/// Writes a file so that it is there as it was or as it shall be, whatever happens.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    // A link is followed: what it points at is the file.
    let path = std::fs::canonicalize(path)?;
    let beside = path.with_extension("new");
    // It may hold secrets, so nobody else reads it before it has the rights of the old one.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.set_permissions(std::fs::metadata(&path)?.permissions())?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| std::fs::rename(&beside, &path));
    if placed.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    placed
}

fn is_set(query: &str, name: &str) -> bool {
    parameter(query, name).is_some_and(|value| matches!(value.as_str(), "" | "1" | "true"))
}

/// Names and values of a query string, decoded.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(split_pair);
    pairs.map(|(name, value)| {
        (decoded_text(name).into_owned(), decoded_text(value.unwrap_or_default()).into_owned())
    })
}

pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let named = query.split('&').map(split_pair).find(|(key, _)| is_named(key, name));
    named.map(|(_, value)| decoded_text(value.unwrap_or_default()).into_owned())
}
