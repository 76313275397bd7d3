//! `maintenance`: the API answers 503 with `Retry-After` (RT-20, its static part).

use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::{Kind, Problem};
use crate::value::Issues;
use std::time::Duration;

pub(super) const NAME: &str = "maintenance";

struct Maintenance {
    retry_after: Duration,
    message: Option<String>,
}

pub(super) fn make(settings: &Settings<'_>, _: &mut Issues) -> Option<Made> {
    let maintenance = settings.maintenance.as_ref().filter(|maintenance| maintenance.value.on)?;
    let retry_after = maintenance.value.retry_after.map_or(Duration::from_secs(60), |span| span.0);
    let step = Maintenance { retry_after, message: maintenance.value.message.clone() };
    Some(Made::new(step, Hooks::REQUEST, maintenance.at))
}

impl Filter for Maintenance {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        let mut problem = Problem::from(Kind::MAINTENANCE).retry_after(self.retry_after);
        problem.detail.clone_from(&self.message);
        Step::Reply(problem.reply(request, x))
    }

    fn explain(&self, _: &RequestHead, _: &Exchange) -> String {
        format!("refuse (503)  retry after {}s", self.retry_after.as_secs())
    }
}
