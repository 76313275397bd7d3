//! `tollgate config …`: the configuration, its schema, its reference, and a first one.

use super::output::{data, fail, findings, json, nothing};
use super::{ConfigFile, Exit, Global};
use crate::config::{docs, effective};
use crate::prepare::prepare;
use clap::Subcommand;

/// A configuration that works, for `config init`.
const FIRST: &str = "\
# Check this file with `tollgate check`, run it with `tollgate run`, ask it with `tollgate explain GET /hello`.
version: 1

listeners:
  web: { bind: 127.0.0.1:8080 }

admin: { bind: 127.0.0.1:9900 }        # health, metrics: curl localhost:9900/metrics

upstreams:
  app: { targets: [127.0.0.1:3000] }

apis:
  app:
    auth: public                       # who may call; a word that must be written
    routes:
      hello: { match: GET /hello, to: { respond: { text: \"hello from tollgate\\n\" } } }
      all: { match: /**, to: app }
";

pub(super) const AFTER: &str = "\
Examples:
  tollgate config init > tollgate.yaml           a first configuration
  tollgate config show --effective               what holds for each route, and where it was written
  tollgate config show --effective --route shop.read
  tollgate config schema > tollgate.schema.json  for an editor
  tollgate config reference | less               every key, its type and its default";

/// The subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show the configuration: includes merged, secrets redacted
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Show what holds for each route after inheritance, and where each value comes from
        #[arg(long)]
        effective: bool,
        /// Only this route, as `api.route`
        #[arg(long, value_name = "ROUTE")]
        route: Option<String>,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print the reference of the configuration as Markdown
    Reference,
    /// Print a first configuration that works
    Init,
}

impl Config {
    pub(super) fn run(&self, global: &Global) -> Exit {
        match self {
            Config::Show { file, effective, route } => show(file, *effective, route.as_deref(), global),
            Config::Schema => json(&docs::schema()),
            Config::Reference => data(&docs::reference()),
            Config::Init => data(FIRST),
        }
    }
}

fn show(file: &ConfigFile, effective: bool, route: Option<&str>, global: &Global) -> Exit {
    let prepared = match prepare(&file.config) {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error),
    };
    if prepared.issues.errors() > 0 {
        findings(&prepared.issues, &prepared.sources, global, "");
        return Exit::Invalid;
    }
    let Some(loaded) = &prepared.loaded else { return Exit::Invalid };
    let known: Vec<String> = prepared
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.routes)
        .map(|route| route.id.to_string())
        .collect();
    let shown = effective::show(loaded, &prepared.sources, effective, route);
    match (route, shown.is_empty()) {
        (Some(route), true) => nothing("route", route, known.iter().map(String::as_str)),
        _ => data(&shown),
    }
}
