//! `tollgate run`: the gateway in the foreground.

use super::output::{fail, findings, talk};
use super::{ConfigFile, Exit, Global};
use crate::prepare::prepare;
use crate::server::{self, Predecessor, Start};
use clap::Args;

pub(super) const AFTER: &str = "\
It logs to stderr and writes a line for each request to stdout, unless `telemetry.access_log` says otherwise. With \
something wrong in the configuration it does not start: see `tollgate check`.

Signals:
  HUP        reads the configuration again, as `tollgate reload`
  USR1       reopens the access log, after a rotation
  USR2       lets the binary be replaced, as `tollgate upgrade`
  TERM QUIT  stop gracefully: requests in flight may finish within `process.drain`
  INT        stops at once, and so does a second TERM

Example:
  tollgate run -c tollgate.yaml --watch";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Read the configuration again whenever one of its files changes
    #[arg(long)]
    watch: bool,
    /// Take over from the process on the other end of standard input
    #[arg(long, hide = true)]
    take_over: bool,
}

impl Run {
    pub(super) fn run(&self, global: &Global) -> Exit {
        crate::observe::log::init(global.verbose);
        // Before anything is made that could count.
        let predecessor = match self.take_over.then(Predecessor::meet).transpose() {
            Ok(predecessor) => predecessor,
            Err(error) => return fail(&error),
        };
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return refuse(predecessor, &error, Exit::Failed),
        };
        findings(&prepared.issues, &prepared.sources, global, "");
        if prepared.snapshot.is_none() {
            return refuse(predecessor, "the configuration is invalid", Exit::Invalid);
        }
        let start = Start {
            path: self.file.config.clone(),
            watch: self.watch,
            prepared,
            predecessor,
            arguments: self.arguments(global),
        };
        match server::run(start) {
            Ok(0) => Exit::Ok,
            Ok(cut) => {
                talk(&format!("stopped with {cut} connections still open"));
                Exit::Ok
            }
            Err(error) => fail(&error),
        }
    }

    /// What another process is started with to do the same.
    fn arguments(&self, global: &Global) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["run".into(), "--config".into(), self.file.config.clone().into()];
        arguments.extend(self.watch.then(|| "--watch".into()));
        arguments.extend(global.quiet.then(|| "--quiet".into()));
        arguments.extend((0..global.verbose).map(|_| "--verbose".into()));
        arguments
    }
}

fn refuse(predecessor: Option<Predecessor>, why: &str, exit: Exit) -> Exit {
    if let Some(predecessor) = predecessor {
        predecessor.refuse(why);
    }
    if exit == Exit::Invalid { exit } else { fail(why) }
}
