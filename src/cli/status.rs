//! `tollgate status`: how the running gateway is, asked over its admin listener.

use super::ask::AdminAddress;
use super::output::{colored, data, fail, json};
use super::{Exit, Global, Output};
use crate::admin::Status as Told;
use crate::value::counted;
use clap::Args;
use std::io::IsTerminal;
use std::time::Duration;

pub(super) const AFTER: &str = "\
Exit code 0 when it is ready, 1 when it is not, 4 when it cannot be reached, 5 when a token is missing or wrong.";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    admin: AdminAddress,
    /// Show it again every second
    #[arg(long)]
    watch: bool,
    /// The same as `-o json`
    #[arg(long)]
    json: bool,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Status {
    pub(super) fn run(&self, global: &Global) -> Exit {
        loop {
            let exit = self.once(global);
            if !self.watch || matches!(exit, Exit::Unreachable | Exit::Refused) {
                return exit;
            }
            std::thread::park_timeout(Duration::from_secs(1));
        }
    }

    fn once(&self, global: &Global) -> Exit {
        let body = match self.admin.ask("/status") {
            Ok((_, body)) => body,
            Err(exit) => return exit,
        };
        let told: Told = match serde_json::from_str(&body) {
            Ok(told) => told,
            Err(error) => return fail(&format!("what answers at {} is no tollgate: {error}", self.admin)),
        };
        let terminal = std::io::stdout().is_terminal();
        // On a terminal each picture takes the place of the last.
        let clear = if self.watch && terminal { "\x1b[2J\x1b[H" } else { "" };
        let shown = match self.json || self.output == Output::Json {
            true => json(&told),
            false => data(&format!("{clear}{}", human(&told, colored(global, terminal)))),
        };
        if told.ready && !told.draining { shown } else { Exit::Failed }
    }
}

fn human(told: &Told, color: bool) -> String {
    let paint =
        |text: &str, code: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let state = match (told.draining, told.ready) {
        (true, _) => paint("draining", "33"),
        (_, true) => paint("ready", "32"),
        _ => paint("starting", "33"),
    };
    let mut text = format!(
        "tollgate {}  {state}  pid {}  up {}  config {}\n{}, {}, {}\n",
        told.version,
        told.pid,
        duration(told.uptime_seconds),
        told.config.get(..6).unwrap_or(&told.config),
        counted(told.listeners, "listener"),
        counted(told.apis, "API"),
        counted(told.routes, "route"),
    );
    if let Some(before) = &told.predecessor {
        let left = counted(before.connections, "connection");
        text.push_str(&format!("process {} before it is draining, {left} left\n", before.pid));
    }
    if told.task_failures > 0 || told.log_dropped > 0 {
        text.push_str(&format!(
            "{} task failures, {} log lines dropped\n",
            told.task_failures, told.log_dropped
        ));
    }
    for split in &told.splits {
        text.push_str(&format!("split {}  {}\n", split.route, split.words()));
    }
    for upstream in &told.upstreams {
        text.push_str(&format!("upstream {}  {}  {}\n", upstream.name, upstream.protocol, upstream.balance));
        for target in &upstream.targets {
            let health = if target.healthy { paint("up  ", "32") } else { paint("DOWN", "31") };
            let reason = if target.healthy { "" } else { target.reason.as_str() };
            text.push_str(&format!(
                "  {health}  {:<28} weight {:<4} in flight {:<5} {reason}\n",
                target.address, target.weight, target.in_flight
            ));
        }
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
