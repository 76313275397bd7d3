//! `tollgate upstream`: the targets of the running gateway, and who of them gets requests.

use super::ask::{AdminAddress, reason};
use super::output::{colored, data, fail, json, nothing};
use super::status::describe_upstream;
use super::{Exit, Global, Output};
use crate::upstream::UpstreamStatus;
use clap::{Args, Subcommand};
use std::io::IsTerminal;
use std::time::Duration;

pub(super) const AFTER: &str = "\
A drained target gets no new requests; those under way go on, so wait until none is in flight before it is stopped. \
What is changed here holds until it is undone, the upstream itself is changed by a reload, or another process takes over.

Example: to replace one server
  tollgate upstream drain orders 10.0.0.7:3000
  tollgate upstream list orders                  again, until 0 are in flight
  tollgate upstream undrain orders 10.0.0.7:3000

Exit codes: 0 done, 1 refused, 4 gateway not reached, 5 it wants a token.";

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Subcommands of `upstream`.
#[derive(Debug, Subcommand)]
pub(super) enum Upstream {
    /// Show the targets, their health, weight and requests in flight
    List(List),
    /// Send a target no new requests; without TARGET, all of the upstream
    Drain(One),
    /// Give a target its configured weight again; without TARGET, all of the upstream
    Undrain(One),
    /// Give a target another weight
    Weight(Weight),
}

/// Arguments of `upstream list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only this upstream
    name: Option<String>,
    #[command(flatten)]
    told: Told,
}

/// Arguments of `upstream drain` and `upstream undrain`.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The upstream
    name: String,
    /// The target, as `upstream list` shows it
    target: Option<String>,
    #[command(flatten)]
    told: Told,
}

/// Arguments of `upstream weight`.
#[derive(Debug, Args)]
pub(super) struct Weight {
    /// The upstream
    name: String,
    /// The target, as `upstream list` shows it
    target: String,
    /// Its weight, 0 to 1000
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    weight: u32,
    #[command(flatten)]
    told: Told,
}

/// Where it is asked and how it is told.
#[derive(Debug, Args)]
struct Told {
    #[command(flatten)]
    admin: AdminAddress,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Upstream {
    pub(super) fn run(&self, global: &Global) -> Exit {
        match self {
            Upstream::List(list) => list.run(global),
            Upstream::Drain(one) => one.run("drain", global),
            Upstream::Undrain(one) => one.run("undrain", global),
            Upstream::Weight(Weight { name, target, weight, told }) => {
                let query = format!("target={}&weight={weight}", escaped(target));
                told.order(&format!("/upstreams/{}/weight?{query}", escaped(name)), global)
            }
        }
    }
}

impl List {
    fn run(&self, global: &Global) -> Exit {
        let body = match self.told.admin.ask("/upstreams") {
            Ok((_, body)) => body,
            Err(exit) => return exit,
        };
        let mut upstreams: Vec<UpstreamStatus> = match serde_json::from_str(&body) {
            Ok(upstreams) => upstreams,
            Err(error) => {
                return fail(&format!("what answers at {} is no tollgate: {error}", self.told.admin));
            }
        };
        if let Some(name) = &self.name {
            if !upstreams.iter().any(|upstream| upstream.name == *name) {
                return nothing("upstream", name, upstreams.iter().map(|upstream| upstream.name.as_str()));
            }
            upstreams.retain(|upstream| upstream.name == *name);
        }
        match self.told.output {
            Output::Json => json(&upstreams),
            Output::Human => data(&shown(&upstreams, global)),
        }
    }
}

impl One {
    fn run(&self, verb: &str, global: &Global) -> Exit {
        let query = self.target.as_deref().map(|target| format!("?target={}", escaped(target)));
        let path = format!("/upstreams/{}/{verb}{}", escaped(&self.name), query.unwrap_or_default());
        self.told.order(&path, global)
    }
}

impl Told {
    /// Has something done, and shows the upstream as it is then.
    fn order(&self, path: &str, global: &Global) -> Exit {
        let (status, body) = match self.admin.send("POST", path, PATIENCE) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        if status != 200 {
            return fail(&reason(&body));
        }
        let upstream: UpstreamStatus = match serde_json::from_str(&body) {
            Ok(upstream) => upstream,
            Err(error) => return fail(&format!("the answer is not understood: {error}")),
        };
        match self.output {
            Output::Json => json(&upstream),
            Output::Human => data(&shown(&[upstream], global)),
        }
    }
}

fn shown(upstreams: &[UpstreamStatus], global: &Global) -> String {
    let color = colored(global, std::io::stdout().is_terminal());
    upstreams.iter().map(|upstream| describe_upstream(upstream, color)).collect()
}

/// A name or address within a request target (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes().fold(String::new(), |escaped, byte| match plain(byte) {
        true => escaped + char::from(byte).encode_utf8(&mut [0; 4]),
        false => escaped + &format!("%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(escaped("unix:/run/a b.sock"), "unix:/run/a%20b.sock");
    }
}
