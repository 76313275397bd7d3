//! `deprecation`: tells callers that a route or version ends, counts who still calls, and refuses them when it has (RT-14).

use super::{Filter, Hooks, Made, Settings, Step};
use crate::build::{Bind, Value};
use crate::consumer::document::Day;
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::observe::metrics::DeprecationMetrics;
use crate::reply::{Kind, Problem};
use crate::value::query::{is_named, split_pair};
use crate::value::{Code, Issue, Issues, Spanned, Template};
use http::header::LINK;
use http::{HeaderName, HeaderValue};
use jiff::civil::Date;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const NAME: &str = "deprecation";

static DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
static SUNSET: HeaderName = HeaderName::from_static("sunset");

/// When a route or version ends, and what takes its place.
#[derive(Clone, Debug, Default)]
pub struct Deprecation {
    /// The day from which it is deprecated.
    pub since: Option<Day>,
    /// The day on which it ends.
    pub sunset: Option<Day>,
    /// What takes its place.
    pub successor: Option<Successor>,
    /// A page that tells of it.
    pub notice: Option<Spanned<String>>,
    /// Whether it is refused from `sunset` on.
    pub gone: bool,
}

/// What takes the place of a deprecated route.
#[derive(Clone, Debug)]
pub enum Successor {
    /// The same address with another prefix: the one of this version, and the one of that.
    Prefix(String, String),
    /// The same address with another value of a query parameter: its name, and the value.
    Parameter(String, String),
    /// Another address.
    Address(Spanned<Template>),
}

struct Ending {
    /// `Deprecation`, `Sunset` and the links that are the same for all requests.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// With its template bound.
    successor: Option<Successor>,
    /// The second since 1970 from which requests are refused, and the day in words.
    gone: Option<(u64, Date)>,
    metrics: DeprecationMetrics,
    nobody: Arc<str>,
    unknown: Arc<str>,
    told: String,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let Spanned { value: deprecation, at } = settings.deprecation.as_ref()?;
    let ending = Ending::new(deprecation, settings, issues)?;
    Some(Made::new(ending, Hooks { request: true, upstream_request: false, response: true }, *at))
}

impl Ending {
    fn new(deprecation: &Deprecation, settings: &Settings<'_>, issues: &mut Issues) -> Option<Ending> {
        let Bind { api, route, .. } = settings.bind;
        let mut fields = Vec::new();
        fields.extend(deprecation.since.and_then(|day| Some((DEPRECATION.clone(), deprecated(day)?))));
        fields.extend(deprecation.sunset.and_then(|day| Some((SUNSET.clone(), http_date(day)?))));
        if let Some(notice) = &deprecation.notice {
            fields.push((LINK, issues.take(link_to(notice))?));
        }
        let successor = match deprecation.successor.clone() {
            Some(Successor::Address(template)) => {
                // A line break in it is found here, and not by the first caller.
                issues.take(settings.bind.value(&template).map(drop::<Value>))?;
                let value = issues.take(settings.bind.template(&template))?;
                Some(Successor::Address(Spanned { value, at: template.at }))
            }
            other => other,
        };
        Some(Ending {
            fields,
            successor,
            gone: deprecation.sunset.filter(|_| deprecation.gone).map(|day| (day.start(), day.0)),
            metrics: settings.build.metrics().deprecation(api, route),
            nobody: "-".into(),
            unknown: "unknown".into(),
            told: told(deprecation),
        })
    }

    /// Counts who calls: consumers by name; anybody else could choose what to be called.
    fn count(&self, x: &Exchange) {
        let consumer = match &x.identity {
            None => &self.nobody,
            Some(identity) => identity.consumer.as_ref().map_or(&self.unknown, |consumer| &consumer.name),
        };
        self.metrics.called(consumer);
    }

    fn successor(&self, request: &RequestHead, x: &Exchange) -> Option<HeaderValue> {
        let mut link = String::with_capacity(128);
        link.push('<');
        match self.successor.as_ref()? {
            Successor::Address(template) => {
                x.render_escaped(&template.value, request, &mut link, |_, text, out| {
                    out.push_str(&text.replace('<', "%3C").replace('>', "%3E"));
                });
            }
            Successor::Prefix(from, to) => with_prefix(request, from, to, &mut link),
            Successor::Parameter(name, value) => with_parameter(request, name, value, &mut link),
        }
        link.push_str(">; rel=\"successor-version\"");
        HeaderValue::from_maybe_shared(bytes::Bytes::from(link)).ok()
    }
}

/// `@` and seconds since 1970, a date of structured fields (RFC 9745 section 2).
fn deprecated(day: Day) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("@{}", day.start())).ok()
}

/// RFC 8594 section 3, RFC 9110 section 5.6.7.
fn http_date(day: Day) -> Option<HeaderValue> {
    HeaderValue::from_str(&day.0.strftime("%a, %d %b %Y 00:00:00 GMT").to_string()).ok()
}

fn link_to(notice: &Spanned<String>) -> Result<HeaderValue, Issue> {
    let wrong = || Issue::new(Code::BAD_VALUE, format!("`{}` is no address", notice.value)).at(notice.at);
    notice.value.parse::<http::Uri>().map_err(|_| wrong())?;
    HeaderValue::from_str(&format!("<{}>; rel=\"deprecation\"", notice.value)).map_err(|_| wrong())
}

/// The address of a request with one prefix instead of another. One for the default version may have none.
fn with_prefix(request: &RequestHead, from: &str, to: &str, out: &mut String) {
    let path = request.uri.path();
    let named = path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    out.extend([to, named.unwrap_or(path)]);
    out.extend(request.uri.query().into_iter().flat_map(|query| ["?", query]));
}

/// The address of a request with this value of a query parameter.
fn with_parameter(request: &RequestHead, name: &str, value: &str, out: &mut String) {
    let is_other = |pair: &&str| !is_named(split_pair(pair).0, name);
    let pairs = request.uri.query().into_iter().flat_map(|query| query.split('&')).filter(is_other);
    out.extend([request.uri.path(), "?"]);
    pairs.for_each(|pair| out.extend([pair, "&"]));
    out.extend([name, "=", value]);
}

fn told(deprecation: &Deprecation) -> String {
    let words = [
        deprecation.since.map(|day| format!("deprecated {day}")),
        deprecation.sunset.map(|day| format!("sunset {day}")),
        deprecation.gone.then(|| "then 410".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl Filter for Ending {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if !x.explaining {
            self.count(x);
        }
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match self.gone {
            Some((from, day)) if now() >= from => {
                let problem = Problem::from(Kind::GONE).detail(format!("It ended on {day}."));
                Step::Reply(problem.reply(request, x))
            }
            _ => Step::Continue,
        }
    }

    fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, x: &Exchange) {
        for (name, value) in &self.fields {
            if *name == LINK {
                head.headers.append(name, value.clone());
            } else {
                head.headers.insert(name, value.clone());
            }
        }
        if let Some(link) = self.successor(request, x) {
            head.headers.append(LINK, link);
        }
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        let link = self.successor(request, x);
        let link = link.as_ref().and_then(|link| link.to_str().ok()).and_then(|link| link.split('>').next());
        let link =
            link.map(|link| format!("  successor {}", link.trim_start_matches('<'))).unwrap_or_default();
        format!("{}{link}", self.told)
    }
}
