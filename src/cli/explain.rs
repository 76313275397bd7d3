//! `tollgate explain`: what would become of a request.

use super::ask::AdminAddress;
use super::output::{data, fail, findings, json};
use super::prepare::{Prepared, prepare};
use super::{ConfigFile, Exit, Global, Output};
use crate::explain::{Explanation, Question, explain, header};
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;

pub(super) const AFTER: &str = "\
Examples:
  tollgate explain GET http://api.example.com/orders/7
  tollgate explain -H 'x-canary: orders-v2' https://api.example.com/orders/7
  tollgate explain --from 203.0.113.9 POST /orders
  tollgate explain --live http://api.example.com/orders/7";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask the running gateway, with the health and addresses of its upstreams, instead of a file
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    admin: AdminAddress,
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
        let question = Question {
            method,
            url: url.clone(),
            headers: self.headers.clone(),
            from: self.from,
            listener: self.listener.clone(),
        };
        if self.live { self.ask(&question) } else { self.work_out(&question, global) }
    }

    fn ask(&self, question: &Question) -> Exit {
        let (status, body) = match self.admin.ask(&format!("/explain?{}", question.to_query())) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        match (serde_json::from_str::<Explanation>(&body), self.output) {
            (Err(_), _) => fail(&format!("{} answers {status}: {}", self.admin, body.trim_end())),
            (Ok(told), Output::Json) => json(&told),
            (Ok(told), Output::Human) => data(&told.to_string()),
        }
    }

    fn work_out(&self, question: &Question, global: &Global) -> Exit {
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
        let Some(snapshot) = &prepared.snapshot else {
            findings(&prepared.issues, &prepared.sources, global, "");
            return Exit::Invalid;
        };
        match (explain(snapshot, &prepared.sources, question), self.output) {
            (Err(error), _) => fail(&error),
            (Ok(told), Output::Json) => json(&masked(told, &prepared)),
            (Ok(told), Output::Human) => data(&masked(told, &prepared).to_string()),
        }
    }
}

fn masked(mut told: Explanation, prepared: &Prepared) -> Explanation {
    if let Some(loaded) = &prepared.loaded {
        told.mask(|text| loaded.mask(text));
    }
    told
}
