//! `tollgate key`: keys of consumers.

use super::output::{data, fail, talk};
use super::{Exit, Global};
use crate::auth::api_key;
use crate::value::{Name, Secret};
use clap::{Args, Subcommand};
use std::io::Read;

pub(super) const AFTER: &str = "\
A key is shown once and stored nowhere: the configuration has its hash. A consumer may have several, so that a new one \
can be handed out before the old one expires.

Examples:
  tollgate key create acme
  tollgate key create acme --name next --expires 2027-01-31
  tollgate key hash < key.txt
";

/// Arguments of `key`.
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key: it is printed once, with the line to paste under the consumer's `keys`
    Create {
        /// The consumer it is for
        consumer: Name,
        /// What the log calls the key
        #[arg(long, value_name = "NAME")]
        name: Option<Name>,
        /// The first day it is no longer good, such as 2027-01-31
        #[arg(long, value_name = "DATE")]
        expires: Option<String>,
    },
    /// Print the hash of a key that is read from standard input
    Hash,
}

impl Key {
    pub(super) fn run(&self, _: &Global) -> Exit {
        match &self.what {
            What::Create { consumer, name, expires } => create(consumer, name.as_ref(), expires.as_deref()),
            What::Hash => hash(),
        }
    }
}

fn create(consumer: &Name, name: Option<&Name>, expires: Option<&str>) -> Exit {
    if let Some(Err(error)) = expires.map(str::parse::<crate::consumer::document::Day>) {
        return fail(&error.replace("\nhelp: ", "; "));
    }
    let (key, hash) = match api_key::create() {
        Ok(made) => made,
        Err(error) => return fail(&error),
    };
    let name = name.map(|name| format!(", name: {name}")).unwrap_or_default();
    let expires = expires.map(|date| format!(", expires: {date}")).unwrap_or_default();
    talk(&format!(
        "this key is shown now and never again; the line below it goes under `consumers: {consumer}: keys:`"
    ));
    data(&format!("{}\n- {{ hash: \"{hash}\"{name}{expires} }}\n", key.expose()))
}

fn hash() -> Exit {
    let mut text = String::new();
    if let Err(error) = std::io::stdin().take(4096).read_to_string(&mut text) {
        return fail(&format!("no key: {error}"));
    }
    let key = Secret::new(text);
    match key.expose().trim_end_matches(['\r', '\n']) {
        "" => fail("no key: write it to standard input"),
        key => data(&format!("{}\n", api_key::hash(key))),
    }
}
