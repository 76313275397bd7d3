//! `tollgate explain`: what would become of a request.

use super::output::{data, fail, findings, json};
use super::prepare::{Prepared, prepare};
use super::{ConfigFile, Exit, Global, Output};
use crate::explain::{Explanation, Question, explain};
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;

pub(super) const AFTER: &str = "\
Examples:
  tollgate explain GET http://api.example.com/orders/7
  tollgate explain -H 'x-canary: orders-v2' https://api.example.com/orders/7
  tollgate explain --from 203.0.113.9 POST /orders";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// A URL or a path, with the method in front if it is not GET
    #[arg(value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    request: Vec<String>,
    /// A header field; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Address the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    /// Listener the request comes in on; default: the first
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header field is written `name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is not a header name"))?;
    let value =
        value.trim().parse().map_err(|_| "the value has characters that a header cannot carry".to_owned())?;
    Ok((name, value))
}

impl Explain {
    pub(super) fn run(&self, global: &Global) -> Exit {
        let (method, url) = match self.request.as_slice() {
            [method, url] => (method.as_str(), url),
            [url] => ("GET", url),
            _ => return fail("what request?"),
        };
        let Ok(method) = method.parse::<Method>() else {
            return fail(&format!("`{method}` is not a method"));
        };
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
        let Some(snapshot) = &prepared.snapshot else {
            findings(&prepared.issues, &prepared.sources, global, "");
            return Exit::Invalid;
        };
        let (url, headers, listener) = (url.clone(), self.headers.clone(), self.listener.clone());
        let question = Question { method, url, headers, from: self.from, listener };
        match (explain(snapshot, &prepared.sources, &question), self.output) {
            (Err(error), _) => fail(&error),
            (Ok(told), Output::Json) => json(&masked(told, &prepared)),
            (Ok(told), Output::Human) => data(&masked(told, &prepared).to_string()),
        }
    }
}

/// Steps and actions show their values; what came from outside is shown as it is written.
fn masked(mut told: Explanation, prepared: &Prepared) -> Explanation {
    if let Some(loaded) = &prepared.loaded {
        told.steps.iter_mut().for_each(|step| step.what = loaded.mask(&step.what));
        if let Some(location) = told.answered.as_mut().and_then(|answered| answered.location.as_mut()) {
            *location = loaded.mask(location);
        }
    }
    told
}
