//! `tollgate reload`: the running gateway reads its configuration again.

use super::ask::{AdminAddress, reason};
use super::output::{data, fail, json, talk};
use super::{Exit, Output};
use crate::reload::Reloaded;
use clap::Args;
use std::time::Duration;

pub(super) const AFTER: &str = "\
The new configuration serves whole or not at all: with an error in it the running one goes on. Connections, WebSockets, \
counters and everything else that has not changed live on. What a process cannot change while it runs, such as the \
addresses of listeners, is taken over by a new process without a connection lost.

Examples:
  tollgate reload --dry-run      what would change; `tollgate diff --live` tells it, too
  tollgate reload
  systemctl reload tollgate      the same by a signal, HUP

Exit codes: 0 the new one serves, 1 it was refused, 4 gateway not reached, 5 it wants a token.";

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    admin: AdminAddress,
    /// Only check the file and tell what would change
    #[arg(long)]
    dry_run: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Reload {
    pub(super) fn run(&self) -> Exit {
        let target = if self.dry_run { "/reload?dry_run=1" } else { "/reload" };
        let (status, body) = match self.admin.send("POST", target, Duration::from_secs(self.wait)) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        if status != 200 {
            return refused(&body);
        }
        let told: Reloaded = match serde_json::from_str(&body) {
            Ok(told) => told,
            Err(error) => return fail(&format!("the answer is not understood: {error}")),
        };
        match self.output {
            Output::Json => json(&told),
            Output::Human => data(&human(&told)),
        }
    }
}

fn refused(body: &str) -> Exit {
    let told: Option<serde_json::Value> = serde_json::from_str(body).ok();
    if let Some(findings) = told.as_ref().and_then(|told| told.get("findings")?.as_str()) {
        talk(findings.trim_end());
    }
    fail(&format!("reload refused: {}; the running configuration is unchanged", reason(body)))
}

fn human(told: &Reloaded) -> String {
    let short = |hash: &str| hash.get(..6).unwrap_or(hash).to_owned();
    let (from, to) = (short(&told.from), short(&told.to));
    let done = match (told.applied, from == to) {
        (false, _) => format!("would reload {from} -> {to}"),
        (true, true) => format!("reloaded {to}"),
        (true, false) => format!("reloaded {from} -> {to}"),
    };
    let mut text = format!("{done}: {}\n", told.summary);
    told.human.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    if let Some(pid) = told.successor {
        text.push_str(&format!("process {pid} serves now\n"));
    }
    text
}
