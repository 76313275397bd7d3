//! `request headers` and `response headers`: remove, rename, default, set, add, always in this order (TX-01).

use super::rules::HeaderRules;
use super::{Filter, Hooks, Made, Settings};
use crate::build::{Bind, Value};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::reply::Problem;
use crate::value::{Code, HeaderKey, Issue, Issues, Map, Spanned, Template};
use http::header::{
    REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const REQUEST: &str = "request headers";
pub(super) const RESPONSE: &str = "response headers";

pub(super) fn make_request(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rules = &settings.request.value.headers;
    if let Some(preset) = &rules.preset {
        issues.push(Issue::new(Code::CONFLICT, "this preset is for responses").at(preset.at));
    }
    let changes = Changes::new(rules, settings.bind, issues)?;
    Some(Made::new(RequestHeaders(changes), Hooks::UPSTREAM_REQUEST, settings.request.at))
}

pub(super) fn make_response(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rules = &settings.response.value.headers;
    let mut changes = Changes::new(rules, settings.bind, issues);
    if rules.preset.is_some() {
        changes.get_or_insert_default().secure();
    }
    let changes = changes?;
    Some(Made::new(ResponseHeaders(changes), Hooks::RESPONSE, settings.response.at))
}

struct RequestHeaders(Changes);

impl Filter for RequestHeaders {
    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        request: &RequestHead,
        x: &Exchange,
    ) -> Result<(), Problem> {
        self.0.apply(&mut head.headers, request, x);
        Ok(())
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        self.0.explain(request, x)
    }
}

struct ResponseHeaders(Changes);

impl Filter for ResponseHeaders {
    fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, x: &Exchange) {
        self.0.apply(&mut head.headers, request, x);
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        self.0.explain(request, x)
    }
}

/// What browsers ask of a careful site; the first holds only over TLS (RFC 6797 section 7.2).
const SECURE: [(HeaderName, HeaderValue); 5] = [
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    (REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// What tells strangers of the software behind.
const TELLTALE: [HeaderName; 2] = [SERVER, HeaderName::from_static("x-powered-by")];

/// Compiled changes.
#[derive(Default)]
struct Changes {
    secure: Vec<(HeaderName, HeaderValue)>,
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
            map.iter()
                .filter_map(|(key, template)| Some((key.0.clone(), issues.take(bind.value(template))?)))
                .collect()
        };
        let changes = Changes {
            secure: Vec::new(),
            remove: rules.remove.iter().map(|key| key.0.clone()).collect(),
            rename: rules.rename.iter().map(|(from, to)| (from.0.clone(), to.0.clone())).collect(),
            default: values(&rules.default),
            set: values(&rules.set),
            add: values(&rules.add),
        };
        (!changes.is_empty()).then_some(changes)
    }

    /// Adds what the preset does about names that the rules leave alone.
    fn secure(&mut self) {
        let mut said = self.remove.clone();
        said.extend(self.rename.iter().flat_map(|(from, to)| [from.clone(), to.clone()]));
        let values = [&self.default, &self.set, &self.add].into_iter().flatten();
        said.extend(values.map(|(name, _)| name.clone()));
        self.secure = SECURE.iter().filter(|(name, _)| !said.contains(name)).cloned().collect();
        self.remove.extend(TELLTALE.iter().filter(|name| !said.contains(name)).cloned());
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.default.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
    }

    fn apply(&self, headers: &mut HeaderMap, request: &RequestHead, x: &Exchange) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (from, to) in &self.rename {
            rename(headers, from, to);
        }
        for (name, value) in &self.default {
            if !headers.contains_key(name)
                && let Some(value) = value.for_request(request, x)
            {
                headers.insert(name, value);
            }
        }
        for (name, value) in &self.secure {
            if !headers.contains_key(name) && (x.secure || *name != STRICT_TRANSPORT_SECURITY) {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &self.set {
            match value.for_request(request, x) {
                Some(value) => headers.insert(name, value),
                // What the client sent under this name must not pass for what the rule would have said.
                None => headers.remove(name),
            };
        }
        for (name, value) in &self.add {
            if let Some(value) = value.for_request(request, x) {
                headers.append(name, value);
            }
        }
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        let mut words = Vec::new();
        words.extend((!self.secure.is_empty()).then(|| "secure".to_owned()));
        words.extend(self.remove.iter().map(|name| format!("-{name}")));
        words.extend(self.rename.iter().map(|(from, to)| format!("{from}->{to}")));
        for (sign, list) in [("?", &self.default), ("=", &self.set), ("+", &self.add)] {
            words.extend(list.iter().map(|(name, value)| {
                let value = value.for_request(request, x);
                format!(
                    "{name}{sign}{}",
                    value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
                )
            }));
        }
        words.join("  ")
    }
}

fn rename(headers: &mut HeaderMap, from: &HeaderName, to: &HeaderName) {
    if !headers.contains_key(from) {
        return;
    }
    let values: Vec<HeaderValue> = headers.get_all(from).iter().cloned().collect();
    headers.remove(from);
    headers.remove(to);
    for value in values {
        headers.append(to, value);
    }
}
