//! `tollgate split`: the shares of splits in the running gateway, shown or changed.

use super::ask::{AdminAddress, reason};
use super::output::{data, fail, json, nothing};
use super::{Exit, Output};
use crate::actions::SplitStatus;
use crate::value::Percent;
use crate::value::query::encode;
use clap::Args;
use std::time::Duration;

pub(super) const AFTER: &str = "\
Examples:
  tollgate split                                 all splits
  tollgate split orders.read orders-v2=20%       the other upstream gets what is left
  tollgate split orders orders-v2=100%           every split of the API `orders`
  tollgate split orders.read --reset             what the configuration says

Clients that are kept with their upstream (`sticky`) stay there: when a canary grows, only those move whom it takes. \
Changed shares hold until a reload brings another split for the route; they outlive reloads that do not, and upgrades.

Exit codes: 0 as asked, 1 there is no such split or the shares were refused, 4 gateway not reached, 5 it wants a token.";

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `split`.
#[derive(Debug, Args)]
pub(super) struct Split {
    #[command(flatten)]
    admin: AdminAddress,
    /// `api.route`, or an API for all its splits
    route: Option<String>,
    /// New shares; they must add up to 100%
    #[arg(value_name = "UPSTREAM=SHARE", value_parser = share, requires = "route")]
    shares: Vec<(String, Percent)>,
    /// Go back to what the configuration says
    #[arg(long, conflicts_with = "shares", requires = "route")]
    reset: bool,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn share(text: &str) -> Result<(String, Percent), String> {
    let (upstream, share) = text.split_once('=').ok_or("write for example `orders-v2=20%`")?;
    Ok((upstream.to_owned(), share.parse()?))
}

impl Split {
    pub(super) fn run(&self) -> Exit {
        let (method, target) = self.question();
        let (status, body) = match self.admin.send(method, &target, PATIENCE) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        if status != 200 {
            return fail(&reason(&body));
        }
        let told: Vec<SplitStatus> = match serde_json::from_str(&body) {
            Ok(told) => told,
            Err(error) => return fail(&format!("the answer is not understood: {error}")),
        };
        let (shown, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|split| self.concerns(&split.route));
        if let Some(name) = self.route.as_ref().filter(|_| shown.is_empty()) {
            return nothing("split", name, others.iter().map(|split| split.route.as_str()));
        }
        match self.output {
            Output::Json => json(&shown),
            Output::Human => data(&human(&shown)),
        }
    }

    fn question(&self) -> (&'static str, String) {
        let Some(route) = self.route.as_ref().filter(|_| self.reset || !self.shares.is_empty()) else {
            return ("GET", "/splits".to_owned());
        };
        let mut target = String::from("/splits/");
        encode(&mut target, route);
        for (number, (upstream, share)) in self.shares.iter().enumerate() {
            target.push(if number == 0 { '?' } else { '&' });
            encode(&mut target, upstream);
            target.push('=');
            encode(&mut target, &share.to_string());
        }
        (if self.reset { "DELETE" } else { "PUT" }, target)
    }

    fn concerns(&self, route: &str) -> bool {
        let is_below = |name: &String| {
            route.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.route.as_ref().is_none_or(is_below)
    }
}

fn human(splits: &[SplitStatus]) -> String {
    if splits.is_empty() {
        return "no route has a split\n".to_owned();
    }
    let width = splits.iter().map(|split| split.route.len()).max().unwrap_or(0);
    splits.iter().map(|split| format!("{:<width$}  {}\n", split.route, split.words())).collect()
}
