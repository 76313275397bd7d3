//! `tollgate check`: everything that is wrong with a configuration, at once.

use super::output::{data, fail, findings, talk};
use super::prepare::prepare;
use super::{ConfigFile, Exit, Global};
use crate::config::report::{Format, report};
use clap::{Args, ValueEnum};

pub(super) const AFTER: &str = "\
Exit code 0 when it can run, 3 when it cannot; with --strict also 3 when there are warnings.
Human findings go to stderr; JSON and SARIF to stdout.";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
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
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
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
