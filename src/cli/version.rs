//! `tollgate version`.

use super::output::{data, json};
use super::{Exit, Output};
use clap::Args;

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(super) struct Version {
    /// The same as `-o json`
    #[arg(long)]
    json: bool,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Version {
    pub(super) fn run(&self) -> Exit {
        let version = env!("CARGO_PKG_VERSION");
        match self.json || self.output == Output::Json {
            true => json(&serde_json::json!({ "name": "tollgate", "version": version, "config_version": 1 })),
            false => data(&format!("tollgate {version}\n")),
        }
    }
}
