//! `cors`: lets pages of other origins call (TX-08; the CORS protocol of <https://fetch.spec.whatwg.org>).
//!
//! The first step, so that a preflight, which never carries credentials, is answered before anybody asks for them, and so that
//! refusals of later steps can be read by the page.

mod origin;
pub mod rules;

use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::reply::{Kind, Problem, Reply};
use crate::value::{Code, Issue, Issues};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use origin::Origins;
use rules::CorsRules;

pub(super) const NAME: &str = "cors";

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What only the gateway says once it speaks CORS: what an upstream says of it is taken out.
const OWN: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Whether a browser asks if it may send another request.
pub fn is_preflight(request: &RequestHead) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(ORIGIN)
        && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The method of the request that a preflight is about.
pub fn requested_method(request: &RequestHead) -> Option<Method> {
    let method = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    is_preflight(request).then(|| Method::from_bytes(method.as_bytes()).ok()).flatten()
}

struct Cors {
    origins: Origins,
    /// `None` allows whatever is asked for.
    methods: Option<HeaderValue>,
    /// `None` allows whatever is asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
    private_network: bool,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rules = settings.cors.as_ref()?;
    let origins = Origins::new(&rules.value.origins.0, rules.at, issues);
    if origins.is_any() && rules.value.credentials {
        let issue = Issue::new(
            Code::CONFLICT,
            "`origins: \"*\"` with `credentials: true` lets every page act as its visitor",
        );
        issues.push(issue.at(rules.at).help("name the origins"));
    }
    if let Some(age) = rules.value.max_age.filter(|age| age.value.0 > rules::LONGEST_AGE) {
        let issue = Issue::new(Code::UNLIKELY, format!("no browser remembers a preflight for {}", age.value));
        issues.push(issue.at(age.at).help("a day is the most that any does, two hours what most do"));
    }
    Some(Made::new(Cors::new(rules.value, origins), Hooks { response: true, ..Hooks::REQUEST }, rules.at))
}

impl Cors {
    fn new(rules: &CorsRules, origins: Origins) -> Cors {
        Cors {
            origins,
            methods: list(rules.methods.0.iter().map(|method| method.0.as_str())),
            headers: list(rules.headers.0.iter().map(|name| name.0.as_str())),
            expose: list(rules.expose.0.iter().map(|name| name.0.as_str())),
            credentials: rules.credentials,
            max_age: rules.max_age.map_or(rules::MAX_AGE, |age| age.value.0).as_secs().into(),
            private_network: rules.private_network,
        }
    }

    /// The answer to a preflight.
    fn answer(&self, request: &RequestHead, x: &Exchange) -> Reply {
        let allowed = request.headers.get(ORIGIN).is_some_and(|origin| self.origins.allow(origin));
        if !allowed {
            return Problem::from(Kind::ORIGIN_DENIED).reply(request, x);
        }
        let asked = |name: HeaderName| request.headers.get(name).cloned();
        let mut headers = Vec::with_capacity(4);
        let mut say =
            |name: HeaderName, value: Option<HeaderValue>| headers.extend(value.map(|value| (name, value)));
        say(
            ACCESS_CONTROL_ALLOW_METHODS,
            self.methods.clone().or_else(|| asked(ACCESS_CONTROL_REQUEST_METHOD)),
        );
        say(
            ACCESS_CONTROL_ALLOW_HEADERS,
            self.headers.clone().or_else(|| asked(ACCESS_CONTROL_REQUEST_HEADERS)),
        );
        say(ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone()));
        if self.private_network && request.headers.contains_key(REQUEST_PRIVATE_NETWORK) {
            say(ALLOW_PRIVATE_NETWORK, Some(TRUE));
        }
        Reply { status: 204, headers, body: Bytes::new(), reason: None, problem: None }
    }

    fn set_vary(&self, headers: &mut HeaderMap, preflight: bool) {
        if !self.origins.is_any() {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if preflight {
            let names = "access-control-request-method, access-control-request-headers";
            headers.append(VARY, HeaderValue::from_static(names));
        }
    }
}

impl Filter for Cors {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        match is_preflight(request) {
            true => Step::Reply(self.answer(request, x)),
            false => Step::Continue,
        }
    }

    fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, _: &Exchange) {
        let (headers, preflight) = (&mut head.headers, is_preflight(request));
        if !preflight {
            for name in &OWN {
                headers.remove(name);
            }
        }
        self.set_vary(headers, preflight);
        let Some(origin) = request.headers.get(ORIGIN).filter(|origin| self.origins.allow(origin)) else {
            return;
        };
        let origin = if self.origins.is_any() { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = self.expose.clone().filter(|_| !preflight) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }

    fn explain(&self, request: &RequestHead, _: &Exchange) -> String {
        let Some(origin) = request.headers.get(ORIGIN) else { return "no origin".to_owned() };
        let verdict = match (self.origins.allow(origin), is_preflight(request)) {
            (true, true) => "allow (204)",
            (false, true) => "refuse (403)",
            (true, false) => "allow",
            (false, false) => "not allowed to read",
        };
        format!("{verdict}  {}", origin.to_str().unwrap_or("not text"))
    }
}

/// A list as a field value; `None` when it is empty.
fn list<'a>(words: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let words: Vec<&str> = words.collect();
    (!words.is_empty()).then(|| HeaderValue::from_str(&words.join(", ")).ok()).flatten()
}
