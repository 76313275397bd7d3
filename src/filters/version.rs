//! `version`: takes the marker that picked an API's version out of the request (RT-13).

use super::{Filter, Hooks, Made, Settings};
use crate::exchange::{Exchange, RequestHead, set_target};
use crate::reply::{Kind, Problem};
use crate::value::query::{is_named, split_pair};
use crate::value::{Issues, Spanned};
use http::HeaderName;

pub(super) const NAME: &str = "version";

/// Where the version stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// In front of the path, as `/v1`.
    Path(String),
    /// In a header.
    Header(HeaderName),
    /// In a query parameter.
    Query(String),
}

struct Version {
    name: String,
    marker: Marker,
}

pub(super) fn make(settings: &Settings<'_>, _: &mut Issues) -> Option<Made> {
    let Spanned { value: (name, marker), at } = settings.version.clone()?;
    Some(Made::new(Version { name, marker }, Hooks::UPSTREAM_REQUEST, at))
}

impl Filter for Version {
    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        _: &RequestHead,
        _: &Exchange,
    ) -> Result<(), Problem> {
        let target = match &self.marker {
            Marker::Header(name) => {
                head.headers.remove(name);
                return Ok(());
            }
            Marker::Path(prefix) => without_prefix(head, prefix),
            Marker::Query(name) => without_parameter(head, name),
        };
        match target {
            Some(target) => set_target(head, &target).map_err(|_| Kind::INTERNAL.into()),
            None => Ok(()),
        }
    }

    fn explain(&self, _: &RequestHead, _: &Exchange) -> String {
        match &self.marker {
            Marker::Path(prefix) => format!("{}  (path {prefix})", self.name),
            Marker::Header(name) => format!("{}  (header {name})", self.name),
            Marker::Query(name) => format!("{}  (query {name})", self.name),
        }
    }
}

/// The target without the prefix; `None` when it has none, as a request for the default version may.
fn without_prefix(head: &RequestHead, prefix: &str) -> Option<String> {
    let rest = head.uri.path().strip_prefix(prefix)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    Some(with_query(path, head.uri.query()))
}

fn without_parameter(head: &RequestHead, name: &str) -> Option<String> {
    let query = head.uri.query()?;
    let is_marker = |pair: &&str| is_named(split_pair(pair).0, name);
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_marker(pair)).collect();
    let kept = kept.join("&");
    Some(with_query(head.uri.path(), Some(kept.as_str()).filter(|kept| !kept.is_empty())))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}
