//! `tollgate explain`: what would become of a request.

use super::ask::AdminAddress;
use super::output::{data, fail, findings, json};
use super::{ConfigFile, Exit, Global, Output};
use crate::explain::{Explanation, Question, explain, header};
use crate::prepare::{Prepared, prepare};
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;

pub(super) const AFTER: &str = "\
Examples:
  tollgate explain GET http://api.example.com/orders/7
  tollgate explain -H 'x-canary: orders-v2' https://api.example.com/orders/7
  tollgate explain --from 203.0.113.9 POST /orders
  tollgate explain --as acme --trace https://api.example.com/orders/7
  tollgate explain --token - https://api.example.com/orders/7 < token.txt
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
    /// Take the caller for this consumer, whatever the request proves
    #[arg(long = "as", value_name = "CONSUMER")]
    consumer: Option<String>,
    /// A token, sent as `Authorization: Bearer`; `-` reads it from standard input
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The request body: `@FILE`, or the text itself. Only its length counts
    #[arg(long, value_name = "BODY")]
    body: Option<String>,
    /// Tell every header field that would be sent upstream
    #[arg(long)]
    trace: bool,
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
            headers: match self.headers() {
                Ok(headers) => headers,
                Err(error) => return fail(&error),
            },
            from: self.from,
            listener: self.listener.clone(),
            consumer: self.consumer.clone(),
            body: match self.body.as_deref().map(length).transpose() {
                Ok(body) => body,
                Err(error) => return fail(&error),
            },
            trace: self.trace,
        };
        if self.live { self.ask(&question) } else { self.work_out(&question, global) }
    }

    /// The header fields, that of `--token` among them.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut headers = self.headers.clone();
        let token = match self.token.as_deref() {
            Some("-") => {
                let mut token = String::new();
                std::io::stdin().read_line(&mut token).map_err(|error| format!("no token: {error}"))?;
                Some(token.trim().to_owned())
            }
            token => token.map(str::to_owned),
        };
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let value =
                value.map_err(|_| "the token has characters that a header cannot carry".to_owned())?;
            headers.push((http::header::AUTHORIZATION, value));
        }
        Ok(headers)
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
        // What needs another server (keys, introspection) is asked for real, so this needs a runtime.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&format!("cannot start: {error}")),
        };
        let told = runtime.block_on(explain(snapshot, &prepared.sources, question));
        match (told, self.output) {
            (Err(error), _) => fail(&error),
            (Ok(told), Output::Json) => json(&masked(told, &prepared)),
            (Ok(told), Output::Human) => data(&masked(told, &prepared).to_string()),
        }
    }
}

/// Bytes of a body: of the file behind `@`, or of the text itself.
fn length(body: &str) -> Result<u64, String> {
    match body.strip_prefix('@') {
        None => Ok(body.len() as u64),
        Some(file) => std::fs::metadata(file)
            .map(|metadata| metadata.len())
            .map_err(|error| format!("{file} cannot be read: {error}")),
    }
}

fn masked(mut told: Explanation, prepared: &Prepared) -> Explanation {
    if let Some(loaded) = &prepared.loaded {
        told.mask(|text| loaded.mask(text));
    }
    told
}
