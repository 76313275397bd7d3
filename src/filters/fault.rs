//! `fault`: delays and errors on purpose, to see how callers bear them (RT-16). Never on unless it is written.

use super::rules::{FaultAbort, FaultDelay, FaultRule};
use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead};
use crate::observe::metrics::FaultMetrics;
use crate::reply::{Kind, Problem, Reply};
use crate::value::{Code, Issue, Issues, Percent};
use http::HeaderName;
use std::time::Duration;

pub(super) const NAME: &str = "fault";

struct Fault {
    delay: Option<(Duration, Percent)>,
    abort: Option<(Kind, Percent)>,
    header: Option<HeaderName>,
    metrics: FaultMetrics,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rule = settings.fault.as_ref()?;
    let FaultRule { delay, abort, header } = rule.value;
    if delay.is_none() && abort.is_none() {
        let issue = Issue::new(Code::EMPTY, "`fault` says no fault").at(rule.at);
        issues.push(issue.help("write for example `fault: { delay: { time: 2s, percent: 10% } }`"));
        return None;
    }
    if let Some(delay) = delay.as_ref().filter(|delay| delay.time.value.0.is_zero()) {
        let issue = Issue::new(Code::BAD_VALUE, "a delay of 0s delays nothing").at(delay.time.at);
        issues.push(issue.help("write for example `2s`, or leave `delay` out"));
    }
    let abort = match abort {
        Some(abort) => Some(issues.take(aborting(abort))?),
        None => None,
    };
    let all = Percent(10_000);
    let delaying = |delay: &FaultDelay| (delay.time.value.0, delay.percent.unwrap_or(all));
    let fault = Fault {
        delay: delay.as_ref().map(delaying),
        abort,
        header: header.as_ref().map(|header| header.0.clone()),
        metrics: settings.build.metrics().faults(settings.bind.api, settings.bind.route),
    };
    let hooks = Hooks { request: true, upstream_request: fault.header.is_some(), response: false };
    Some(Made::new(fault, hooks, rule.at))
}

fn aborting(abort: &FaultAbort) -> Result<(Kind, Percent), Issue> {
    let status = abort.status.value;
    if !(400..=599).contains(&status) {
        let issue = Issue::new(Code::BAD_VALUE, format!("{status} is no error")).at(abort.status.at);
        return Err(issue.help("write a status from 400 to 599"));
    }
    Ok((Kind { status, ..Kind::FAULT }, abort.percent.unwrap_or(Percent(10_000))))
}

/// Draws by lot.
fn hits(share: Percent) -> bool {
    share.0 >= 10_000 || crate::tasks::random() % 10_000 < u64::from(share.0)
}

impl Fault {
    fn concerns(&self, request: &RequestHead) -> bool {
        self.header.as_ref().is_none_or(|name| request.headers.contains_key(name))
    }

    fn abort(&self, kind: Kind, request: &RequestHead, x: &mut Exchange) -> Reply {
        self.metrics.abort.inc();
        x.fault = Some(if x.fault.is_some() { "delay+abort" } else { "abort" });
        Problem::from(kind).reply(request, x)
    }
}

impl Filter for Fault {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if x.explaining || !self.concerns(request) {
            return Step::Continue;
        }
        let delay = self.delay.filter(|(_, share)| hits(*share)).map(|(time, _)| time);
        let abort = self.abort.filter(|(_, share)| hits(*share)).map(|(kind, _)| kind);
        match (delay, abort) {
            (None, None) => Step::Continue,
            (None, Some(kind)) => Step::Reply(self.abort(kind, request, x)),
            (Some(time), abort) => {
                self.metrics.delay.inc();
                x.fault = Some("delay");
                Step::Wait(Box::pin(async move {
                    tokio::time::sleep(time).await;
                    abort.map(|kind| self.abort(kind, request, x))
                }))
            }
        }
    }

    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        _: &RequestHead,
        _: &Exchange,
    ) -> Result<(), Problem> {
        if let Some(name) = &self.header {
            head.headers.remove(name);
        }
        Ok(())
    }

    fn explain(&self, request: &RequestHead, _: &Exchange) -> String {
        let delay = self.delay.map(|(time, share)| format!("delay {share} by {time:?}"));
        let abort = self.abort.map(|(kind, share)| format!("abort {share} with {}", kind.status));
        let faults = delay.into_iter().chain(abort).collect::<Vec<_>>().join(", ");
        match (&self.header, self.concerns(request)) {
            (Some(name), false) => format!("pass  no {name} ({faults})"),
            _ => faults,
        }
    }
}
