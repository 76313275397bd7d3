//! `tollgate status`: how the running gateway is, asked over its admin listener.

use super::ask::AdminAddress;
use super::output::{colored, data, fail, json};
use super::{Exit, Global, Output};
use crate::admin::Status as Told;
use crate::upstream::{TargetStatus, UpstreamStatus};
use crate::value::counted;
use clap::Args;
use std::io::IsTerminal;
use std::time::Duration;

pub(super) const AFTER: &str = "\
Examples:
  tollgate status --watch
  tollgate status --admin http://127.0.0.1:9900 -o json
  tollgate status -q > /dev/null || echo 'not ready'

Exit codes: 0 ready, 1 not ready, 4 gateway not reached, 5 it wants a token.";

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
    let paint = |text: &str, code: &str| paint(color, text, code);
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
    told.upstreams.iter().for_each(|upstream| text.push_str(&describe_upstream(upstream, color)));
    text
}

/// An upstream in a line, and a line for each of its targets.
pub(super) fn describe_upstream(upstream: &UpstreamStatus, color: bool) -> String {
    let breaker = match upstream.breaker.as_deref() {
        None => String::new(),
        Some("closed") => "  breaker closed".to_owned(),
        Some(phase) => format!("  breaker {}", paint(color, &phase.replace('_', " "), "31")),
    };
    let panics = if upstream.panics { "  too few targets: ejected ones are used" } else { "" };
    let mut text =
        format!("upstream {}  {}  {}{breaker}{panics}\n", upstream.name, upstream.protocol, upstream.balance);
    for target in &upstream.targets {
        let (state, code) = match target {
            TargetStatus { drained: true, .. } => ("drained", "33"),
            TargetStatus { healthy: false, .. } => ("DOWN   ", "31"),
            TargetStatus { ejected: true, .. } => ("ejected", "31"),
            _ => ("up     ", "32"),
        };
        let mut notes = Vec::new();
        notes.extend(target.backup.then(|| "backup".to_owned()));
        notes.extend((target.by_hand && !target.drained).then(|| "by hand".to_owned()));
        notes.extend((target.share < 100).then(|| format!("starting: {}%", target.share)));
        notes.extend((!target.healthy || target.ejected).then(|| target.reason.clone()));
        let line = format!(
            "  {}  {:<28} weight {:<4} in flight {:<5} {}",
            paint(color, state, code),
            target.address,
            target.weight,
            target.in_flight,
            notes.join(", ")
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn paint(color: bool, text: &str, code: &str) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
