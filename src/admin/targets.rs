//! Draining targets and changing their weights by hand: `POST /upstreams/NAME/drain`, `/undrain` and `/weight`, each with
//! `?target=ADDRESS` for one target, else for all of the upstream.

use super::change::{failure, parameter};
use super::{App, json, not_allowed};
use crate::upstream::Upstream;
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use std::sync::Arc;

/// Largest weight, as in the configuration.
const HEAVIEST: u32 = 1000;

/// What is to be done with targets of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order<'p> {
    Drain(&'p str),
    Undrain(&'p str),
    Weight(&'p str),
}

impl Order<'_> {
    /// What a path asks for.
    pub(super) fn of(path: &str) -> Option<Order<'_>> {
        let (name, verb) = path.strip_prefix("/upstreams/")?.split_once('/')?;
        match verb {
            "drain" => Some(Order::Drain(name)),
            "undrain" => Some(Order::Undrain(name)),
            "weight" => Some(Order::Weight(name)),
            _ => None,
        }
    }
}

impl App {
    /// Does it and answers with the upstream as it is then.
    pub(super) fn order(&self, order: Order<'_>, session: &ServerSession, query: &str) -> Response<Vec<u8>> {
        if session.req_header().method != Method::POST {
            return not_allowed("POST");
        }
        if !self.may_change(session) {
            return super::change::forbidden();
        }
        let (name, weight) = match order {
            Order::Drain(name) => (name, Ok(Some(0))),
            Order::Undrain(name) => (name, Ok(None)),
            Order::Weight(name) => (name, weight(query).map(Some)),
        };
        let done = weight.and_then(|weight| {
            let upstream = self.upstream(name)?;
            set(&upstream, parameter(query, "target").as_deref(), weight)?;
            Ok(upstream)
        });
        match done {
            Ok(upstream) => json(&upstream.status()),
            Err((status, why)) => failure(status, why, None),
        }
    }

    fn upstream(&self, name: &str) -> Result<Arc<Upstream>, (StatusCode, String)> {
        let snapshot = self.state.running.current.load();
        let found = snapshot.upstreams.iter().find(|upstream| upstream.name().as_str() == name);
        found.cloned().ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no upstream `{name}`")))
    }
}

fn weight(query: &str) -> Result<u32, (StatusCode, String)> {
    let weight =
        parameter(query, "weight").and_then(|text| text.parse().ok()).filter(|weight| *weight <= HEAVIEST);
    weight.ok_or_else(|| (StatusCode::BAD_REQUEST, format!("say a weight from 0 to {HEAVIEST}: ?weight=10")))
}

fn set(upstream: &Upstream, target: Option<&str>, weight: Option<u32>) -> Result<(), (StatusCode, String)> {
    let known = upstream.targets();
    let labels = known.iter().map(|target| &**target.label());
    let chosen: Vec<&str> =
        labels.clone().filter(|label| target.is_none_or(|target| target == *label)).collect();
    if chosen.is_empty() {
        let all: Vec<&str> = labels.collect();
        let why = format!(
            "upstream `{}` has no target `{}`; it has: {}",
            upstream.name(),
            target.unwrap_or_default(),
            all.join(", ")
        );
        return Err((StatusCode::NOT_FOUND, why));
    }
    for label in chosen {
        upstream.set_weight(label, weight);
    }
    Ok(())
}
