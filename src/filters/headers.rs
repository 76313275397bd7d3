//! `request headers` and `response headers`: remove, rename, default, set, add, always in this order (TX-01).

use super::{Filter, Hooks, Settings};
use crate::build::{Bind, Value};
use super::rules::HeaderRules;
use crate::exchange::Exchange;
use crate::reply::Problem;
use crate::value::{At, HeaderKey, Issues, Map, Spanned, Template};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

pub(super) const REQUEST: &str = "request headers";
pub(super) const RESPONSE: &str = "response headers";

pub(super) fn make_request(settings: &Settings<'_>, issues: &mut Issues) -> Option<Box<dyn Filter>> {
    let changes = Changes::new(&settings.request.value.headers, settings.bind, issues)?;
    Some(Box::new(RequestHeaders { changes, at: settings.request.at }))
}

pub(super) fn make_response(settings: &Settings<'_>, issues: &mut Issues) -> Option<Box<dyn Filter>> {
    let changes = Changes::new(&settings.response.value.headers, settings.bind, issues)?;
    Some(Box::new(ResponseHeaders { changes, at: settings.response.at }))
}

struct RequestHeaders {
    changes: Changes,
    at: At,
}

impl Filter for RequestHeaders {
    fn name(&self) -> &'static str {
        REQUEST
    }

    fn at(&self) -> At {
        self.at
    }

    fn hooks(&self) -> Hooks {
        Hooks::UPSTREAM_REQUEST
    }

    fn on_upstream_request(&self, head: &mut RequestHeader, request: &RequestHeader, x: &Exchange) -> Result<(), Problem> {
        self.changes.apply(head, request, x);
        Ok(())
    }

    fn explain(&self, request: &RequestHeader, x: &Exchange) -> String {
        self.changes.explain(request, x)
    }
}

struct ResponseHeaders {
    changes: Changes,
    at: At,
}

impl Filter for ResponseHeaders {
    fn name(&self) -> &'static str {
        RESPONSE
    }

    fn at(&self) -> At {
        self.at
    }

    fn hooks(&self) -> Hooks {
        Hooks::RESPONSE
    }

    fn on_response(&self, head: &mut ResponseHeader, request: &RequestHeader, x: &Exchange) {
        self.changes.apply(head, request, x);
    }

    fn explain(&self, request: &RequestHeader, x: &Exchange) -> String {
        self.changes.explain(request, x)
    }
}

/// A head whose fields can be changed: the request's or the response's.
trait Fields {
    fn fields(&self) -> &HeaderMap;
    fn remove(&mut self, name: &HeaderName);
    fn set(&mut self, name: &HeaderName, value: HeaderValue);
    fn append(&mut self, name: &HeaderName, value: HeaderValue);
}

// The engine keeps the case of names beside the map, so fields are changed through its own methods. They fail only when a
// name or value is not valid, which the types here rule out.
macro_rules! fields {
    ($head:ty) => {
        impl Fields for $head {
            fn fields(&self) -> &HeaderMap {
                &self.headers
            }
            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
            fn set(&mut self, name: &HeaderName, value: HeaderValue) {
                drop(self.insert_header(name.clone(), value));
            }
            fn append(&mut self, name: &HeaderName, value: HeaderValue) {
                drop(self.append_header(name.clone(), value));
            }
        }
    };
}
fields!(RequestHeader);
fields!(ResponseHeader);

/// Compiled changes.
struct Changes {
    remove: Vec<HeaderName>,
    rename: Vec<(HeaderName, HeaderName)>,
    default: Vec<(HeaderName, Value)>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

impl Changes {
    /// `None` when there is nothing to change.
    fn new(rules: &HeaderRules, bind: Bind<'_>, issues: &mut Issues) -> Option<Changes> {
        let mut values = |map: &Map<Spanned<Template>, HeaderKey>| -> Vec<(HeaderName, Value)> {
            map.iter().filter_map(|(key, template)| Some((key.0.clone(), issues.take(bind.value(template))?))).collect()
        };
        let changes = Changes {
            remove: rules.remove.iter().map(|key| key.0.clone()).collect(),
            rename: rules.rename.iter().map(|(from, to)| (from.0.clone(), to.0.clone())).collect(),
            default: values(&rules.default),
            set: values(&rules.set),
            add: values(&rules.add),
        };
        (!changes.is_empty()).then_some(changes)
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.default.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    fn apply(&self, head: &mut impl Fields, request: &RequestHeader, x: &Exchange) {
        self.remove.iter().for_each(|name| head.remove(name));
        for (from, to) in &self.rename {
            rename(head, from, to);
        }
        for (name, value) in &self.default {
            if !head.fields().contains_key(name)
                && let Some(value) = value.for_request(request, x)
            {
                head.set(name, value);
            }
        }
        for (name, value) in &self.set {
            match value.for_request(request, x) {
                Some(value) => head.set(name, value),
                // What the client sent under this name must not pass for what the rule would have said.
                None => head.remove(name),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.for_request(request, x) {
                head.append(name, value);
            }
        }
    }

    fn explain(&self, request: &RequestHeader, x: &Exchange) -> String {
        let mut words = Vec::new();
        words.extend(self.remove.iter().map(|name| format!("-{name}")));
        words.extend(self.rename.iter().map(|(from, to)| format!("{from}->{to}")));
        for (sign, list) in [("?", &self.default), ("=", &self.set), ("+", &self.add)] {
            words.extend(list.iter().map(|(name, value)| {
                let value = value.for_request(request, x);
                format!("{name}{sign}{}", value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default())
            }));
        }
        words.join("  ")
    }
}

fn rename(head: &mut impl Fields, from: &HeaderName, to: &HeaderName) {
    if !head.fields().contains_key(from) {
        return;
    }
    let values: Vec<HeaderValue> = head.fields().get_all(from).iter().cloned().collect();
    head.remove(from);
    head.remove(to);
    values.into_iter().for_each(|value| head.append(to, value));
}
