//! `body`: the size of the request body (RT-17). What is declared is refused here; what is sent is counted by the gateway.

use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead, declared_body};
use crate::reply::{Kind, Problem};
use crate::value::{ByteSize, Issues, Spanned};

pub(super) const NAME: &str = "body";

/// What `body.max` is when nobody says.
pub const DEFAULT_MAX: ByteSize = ByteSize(10 << 20);

struct Body {
    max: ByteSize,
}

pub(super) fn make(settings: &Settings<'_>, _: &mut Issues) -> Option<Made> {
    let Spanned { value: max, at } = settings.body?;
    Some(Made::new(Body { max }, Hooks::REQUEST, at))
}

/// The answer to a body that is too large.
pub fn too_large(max: u64) -> Problem {
    Problem::from(Kind::BODY_TOO_LARGE).detail(format!("At most {} are accepted.", ByteSize(max)))
}

impl Filter for Body {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if declared_body(request).is_some_and(|declared| declared > self.max.0) {
            return Step::Reply(too_large(self.max.0).reply(request, x));
        }
        Step::Continue
    }

    fn explain(&self, _: &RequestHead, _: &Exchange) -> String {
        format!("at most {}", self.max)
    }
}
