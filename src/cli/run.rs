//! `tollgate run`: the gateway in the foreground.

use super::output::{fail, findings, talk};
use super::prepare::{Prepared, prepare};
use super::{ConfigFile, Exit, Global};
use crate::server::{self, Start};
use clap::Args;

pub(super) const AFTER: &str = "\
Signals: TERM and QUIT stop gracefully (requests in flight may finish within process.drain.requests), INT or a second TERM
stop at once, USR1 reopens the access log.";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
}

impl Run {
    pub(super) fn run(&self, global: &Global) -> Exit {
        crate::observe::log::init(global.verbose);
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
        let Prepared { loaded, snapshot, shared, sources, issues } = prepared;
        findings(&issues, &sources, global, "");
        let (Some(loaded), Some(snapshot), Some(shared)) = (loaded, snapshot, shared) else {
            return Exit::Invalid;
        };
        match server::run(Start { loaded, sources, snapshot, shared }) {
            Ok(0) => Exit::Ok,
            Ok(cut) => {
                talk(&format!("stopped with {cut} connections still open"));
                Exit::Ok
            }
            Err(error) => fail(&error),
        }
    }
}
