//! `tollgate check`: everything that is wrong with a configuration, at once.

use super::output::{data, fail, findings, talk};
use super::{ConfigFile, Exit, Global};
use crate::config::report::{Format, report};
use crate::prepare::prepare;
use crate::reload::{WARM_UP, warm_up};
use crate::snapshot::Snapshot;
use crate::tasks::Supervisor;
use crate::value::{Code, Issue};
use clap::{Args, ValueEnum};

pub(super) const AFTER: &str = "\
Reads the file with all it includes, fills in what comes from the environment and from files, and builds everything but \
the sockets, just as `run` and `reload` do: what passes here starts. Each finding has a code such as TG1204, which \
`tollgate config reference` explains, its place, and mostly a way to mend it.

Examples:
  tollgate check -c tollgate.yaml
  tollgate check --strict -o sarif > findings.sarif    in CI
  tollgate check --online                              on the machine that it will run on

Exit code 0 when it can run, 3 when it cannot; with --strict also 3 when there are warnings. \
Human findings go to stderr; JSON and SARIF to stdout.";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
    /// Also look whether every upstream can be reached; takes a few seconds
    #[arg(long)]
    online: bool,
    /// How to report
    #[arg(long, short = 'o', alias = "output", value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

impl Check {
    pub(super) fn run(&self, global: &Global) -> Exit {
        let mut prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
        if self.online
            && let Some(snapshot) = &prepared.snapshot
        {
            match reach(snapshot) {
                Ok(found) => prepared.issues.0.extend(found),
                Err(error) => return fail(&error),
            }
        }
        let (issues, sources) = (&prepared.issues, &prepared.sources);
        let machine = match self.format {
            ReportFormat::Human => None,
            ReportFormat::Json => Some(Format::Json),
            ReportFormat::Sarif => Some(Format::Sarif),
        };
        match machine {
            None => findings(issues, sources, global, ""),
            Some(format) => {
                let mut text = Vec::new();
                if let Err(error) = report(&mut text, issues, sources, &format, "") {
                    return fail(&error.to_string());
                }
                data(&String::from_utf8_lossy(&text));
            }
        }
        if issues.errors() > 0 || (self.strict && issues.warnings() > 0) {
            return Exit::Invalid;
        }
        if machine.is_none() && !global.quiet {
            talk(&format!("{} is valid.", self.file.config.display()));
        }
        Exit::Ok
    }
}

/// Runs every health check once and reports the targets that fail it.
fn reach(snapshot: &Snapshot) -> Result<Vec<Issue>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("threads cannot be started: {error}"))?;
    runtime.block_on(async {
        let supervisor = Supervisor::new(runtime.handle().clone());
        supervisor.adopt(&snapshot.tasks());
        warm_up(snapshot, WARM_UP).await;
        supervisor.stop().await;
    });
    let mut found = Vec::new();
    for status in snapshot.upstreams.iter().map(|upstream| upstream.status()) {
        if status.targets.is_empty() {
            found.push(Issue::new(
                Code::UNREACHED,
                format!("no address of upstream `{}` is known", status.name),
            ));
        }
        let down = status.targets.iter().filter(|target| !target.healthy);
        found.extend(down.map(|target| {
            let message =
                format!("target {} of upstream `{}`: {}", target.address, status.name, target.reason);
            Issue::new(Code::UNREACHED, message)
        }));
    }
    Ok(found)
}
