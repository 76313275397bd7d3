//! `tollgate upgrade`: another binary takes over from the running one.

use super::Exit;
use super::ask::{AdminAddress, reason};
use super::output::{data, fail, talk};
use crate::value::query::encode;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const AFTER: &str = "\
The running process starts the new binary, which checks the configuration, takes the listening sockets and gets ready \
while the old process goes on serving. Only when the new one serves does the old one stop accepting, finish what it has \
begun (`process.drain`) and end. Whatever goes wrong before, the old process goes on as if nothing had happened.

Example:
  install -m 755 tollgate-new /usr/bin/tollgate
  tollgate upgrade

Exit codes: 0 the new binary serves, 4 gateway not reached, 5 it wants a token, 6 aborted: the old one still serves. \
The signal USR2 does the same.";

/// How much longer than the new process may take its answer may.
const MARGIN: Duration = Duration::from_secs(20);

/// Arguments of `upgrade`.
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    #[command(flatten)]
    admin: AdminAddress,
    /// The new binary; default: what now stands where the running one was started from
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long the new process may take to get ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Upgrade {
    pub(super) fn run(&self) -> Exit {
        let mut target = format!("/upgrade?within={}", self.timeout);
        if let Some(binary) = &self.binary {
            let binary = match std::path::absolute(binary) {
                Ok(binary) => binary,
                Err(error) => return fail(&format!("{}: {error}", binary.display())),
            };
            target.push_str("&binary=");
            encode(&mut target, &binary.to_string_lossy());
        }
        match self.admin.send("POST", &target, Duration::from_secs(self.timeout) + MARGIN) {
            Ok((200, body)) => {
                let told: Option<serde_json::Value> = serde_json::from_str(&body).ok();
                let pid = told.and_then(|told| told.get("successor")?.as_u64()).unwrap_or_default();
                data(&format!("process {pid} serves now\n"))
            }
            Ok((_, body)) => {
                talk(&format!("error: upgrade aborted: {}; the old process goes on", reason(&body)));
                Exit::Aborted
            }
            Err(exit) => exit,
        }
    }
}
