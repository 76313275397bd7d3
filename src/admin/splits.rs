//! The shares of splits: shown, and changed while the gateway runs.

use super::change::{failure, forbidden};
use super::{App, json, not_allowed};
use crate::actions::{Shares, SplitStatus};
use crate::snapshot::Snapshot;
use crate::value::Percent;
use crate::value::query::{decoded_text, split_pair};
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use std::sync::Arc;

impl App {
    /// All splits.
    pub(super) fn splits(&self) -> Vec<SplitStatus> {
        let snapshot = self.state.running.current.load();
        snapshot.splits().map(|(route, shares)| shares.status(route)).collect()
    }

    /// Changes the shares of a route's split, or of all routes of an API or a version that are named together; all or none.
    pub(super) fn change_split(
        &self,
        session: &ServerSession,
        method: &Method,
        name: &str,
        query: &str,
    ) -> Response<Vec<u8>> {
        if !matches!(*method, Method::PUT | Method::DELETE) {
            return not_allowed("PUT, DELETE");
        }
        if !self.may_change(session) {
            return forbidden();
        }
        let snapshot = self.state.running.current.load();
        let splits = named(&snapshot, name);
        if splits.is_empty() {
            return failure(StatusCode::NOT_FOUND, format!("there is no split `{name}`"), None);
        }
        let done = match method == Method::DELETE {
            true => {
                splits.iter().for_each(|(_, shares)| shares.reset());
                Ok(())
            }
            false => asked(query).and_then(|given| change(&splits, &given)),
        };
        match done {
            Ok(()) => {
                let told: Vec<_> = splits.iter().map(|(route, shares)| shares.status(route)).collect();
                told.iter().for_each(|split| log::info!("split {}: {}", split.route, split.words()));
                json(&told)
            }
            Err(why) => failure(StatusCode::UNPROCESSABLE_ENTITY, why, None),
        }
    }
}

/// The split of a route, or those of all routes below an API or version.
fn named<'s>(snapshot: &'s Snapshot, name: &str) -> Vec<(&'s Arc<str>, &'s Shares)> {
    let is_below =
        |id: &str| id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    snapshot.splits().filter(|(route, _)| is_below(route)).collect()
}

/// `UPSTREAM=SHARE`, joined by `&`.
fn asked(query: &str) -> Result<Vec<(String, Percent)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(split_pair);
    let given = pairs.map(|(name, share)| {
        let share = decoded_text(share.unwrap_or_default());
        let percent =
            share.parse().map_err(|why: String| why.lines().next().unwrap_or_default().to_owned())?;
        Ok((decoded_text(name).into_owned(), percent))
    });
    let given: Vec<(String, Percent)> = given.collect::<Result<_, String>>()?;
    if given.is_empty() {
        Err("say at least one share, such as `orders-v2=20%`".to_owned())
    } else {
        Ok(given)
    }
}

fn change(splits: &[(&Arc<str>, &Shares)], given: &[(String, Percent)]) -> Result<(), String> {
    let changed = splits.iter().map(|(route, shares)| {
        let with = shares.with(given).map_err(|why| format!("{route}: {why}"))?;
        Ok((shares, with))
    });
    let changed: Vec<_> = changed.collect::<Result<_, String>>()?;
    changed.into_iter().for_each(|(shares, with)| shares.set(with));
    Ok(())
}
