//! `tollgate diff`: what differs between two configurations in what they mean.

use super::ask::{AdminAddress, reason};
use super::output::{colored, data, findings, json, talk};
use super::{Exit, Global, Output};
use crate::config::diff::{Difference, diff, diff_redacted};
use crate::config::{Loaded, load};
use crate::value::{Issues, Sources};
use clap::Args;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const AFTER: &str = "\
The order of keys, comments, quotes, includes, units and short forms do not count.
A line for each change:
  + route shop.new: GET /new → app
  - route shop.old: GET /old → app (requests to GET /old get 404 unless another route matches)
  ~ route shop.read: timeouts.response: 30s → 10s
  ~ listener web: bind: 0.0.0.0:80 → 0.0.0.0:8080 (needs an in-place upgrade)
  ~ auth provider sso: jwt.secret: (secret) changed

Examples:
  tollgate diff tollgate.yaml.old tollgate.yaml
  tollgate diff <(git show HEAD~1:tollgate.yaml) tollgate.yaml
  tollgate diff --live             what a reload would change
  tollgate diff --live next.yaml   as if the gateway had this file; secrets are not compared

Exit code 0 when both mean the same, 1 when they differ, above when something failed:
2 usage and others, 3 configuration invalid, 4 gateway not reached, 5 refused.";

/// How long the gateway may take to read and build its configuration.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The configuration before; with --live the one that is compared with what runs (default: the gateway's own file)
    #[arg(required_unless_present = "live")]
    old: Option<PathBuf>,
    /// The configuration after
    #[arg(required_unless_present = "live", conflicts_with = "live")]
    new: Option<PathBuf>,
    /// Compare with the running gateway
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    admin: AdminAddress,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What the gateway answers to a reload that is only tried, and what is printed for programs.
#[derive(serde::Serialize, serde::Deserialize)]
struct Told {
    summary: String,
    changes: Vec<Value>,
    #[serde(default)]
    needs_upgrade: Vec<String>,
    #[serde(default, skip_serializing)]
    human: String,
}

impl Told {
    fn new(difference: &Difference) -> Result<Told, String> {
        let changes = difference.changes.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        Ok(Told {
            summary: difference.summary(),
            changes: changes.map_err(|error| error.to_string())?,
            needs_upgrade: difference.needs_upgrade().into_iter().map(str::to_owned).collect(),
            human: difference.to_string(),
        })
    }
}

impl Diff {
    pub(super) fn run(&self, global: &Global) -> Exit {
        let told = match (&self.old, &self.new) {
            (Some(old), Some(new)) => files(old, new, global),
            (Some(file), None) => self.running_and(file, global),
            _ => self.running_and_its_file(),
        };
        told.map_or_else(|exit| exit, |told| self.show(&told, global))
    }

    fn show(&self, told: &Told, global: &Global) -> Exit {
        let shown = match self.output {
            Output::Json => json(told),
            Output::Human => data(&painted(&told.human, colored(global, std::io::stdout().is_terminal()))),
        };
        match shown {
            Exit::Ok if told.changes.is_empty() => Exit::Ok,
            Exit::Ok => Exit::DIFFERENT,
            _ => Exit::Trouble,
        }
    }

    /// What the gateway's own file would change: it says so itself, because only it knows all that runs.
    fn running_and_its_file(&self) -> Result<Told, Exit> {
        let (status, body) = self.admin.send("POST", "/reload?dry_run=1", PATIENCE)?;
        match status {
            200 => self.parsed(&body),
            422 => {
                let told: Value = serde_json::from_str(&body).unwrap_or_default();
                talk(told.get("findings").and_then(Value::as_str).unwrap_or_default().trim_end());
                talk(&format!("error: {}", reason(&body)));
                Err(Exit::Invalid)
            }
            404 | 405 => Err(trouble("the running gateway is older than this command and cannot be asked")),
            _ => Err(trouble(&reason(&body))),
        }
    }

    /// What a file would change, as far as the gateway tells what runs.
    fn running_and(&self, file: &Path, global: &Global) -> Result<Told, Exit> {
        let (status, body) = self.admin.ask("/config")?;
        if status != 200 {
            return Err(trouble(&reason(&body)));
        }
        let running: Value = self.parsed(&body)?;
        let Some(document) = running.get("document") else {
            return Err(trouble(&format!("what answers at {} is no tollgate", self.admin)));
        };
        let told = told(&diff_redacted(document, &read(file, global)?))?;
        if !global.quiet {
            talk("note: the gateway tells no secrets and no values from outside; they are not compared");
        }
        Ok(told)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, body: &str) -> Result<T, Exit> {
        serde_json::from_str(body)
            .map_err(|error| trouble(&format!("what answers at {} is no tollgate: {error}", self.admin)))
    }
}

fn files(old: &Path, new: &Path, global: &Global) -> Result<Told, Exit> {
    let (old, new) = (read(old, global), read(new, global));
    told(&diff(&old?, &new?))
}

fn told(difference: &Difference) -> Result<Told, Exit> {
    Told::new(difference).map_err(|error| trouble(&error))
}

/// A configuration that could be read; what is wrong with it has been said. It is not built: certificates and keys that it
/// names need not be on this machine.
fn read(path: &Path, global: &Global) -> Result<Loaded, Exit> {
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let loaded = load(path, &mut sources, &mut issues);
    issues.sort();
    if issues.errors() > 0 {
        findings(&issues, &sources, global, "");
    }
    loaded.filter(|loaded| loaded.whole && issues.errors() == 0).ok_or(Exit::Invalid)
}

/// Says what failed. Not [`Exit::Failed`], which would say that there is a difference.
fn trouble(what: &str) -> Exit {
    talk(&format!("error: {what}"));
    Exit::Trouble
}

/// What is new in green, what is gone in red, what is another in yellow.
fn painted(text: &str, color: bool) -> String {
    if !color {
        return text.to_owned();
    }
    let paint = |line: &str| match line.chars().next() {
        Some('+') => format!("\x1b[32m{line}\x1b[0m\n"),
        Some('-') => format!("\x1b[31m{line}\x1b[0m\n"),
        Some('~') => format!("\x1b[33m{line}\x1b[0m\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(paint).collect()
}
