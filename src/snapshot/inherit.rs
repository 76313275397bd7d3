//! Inheritance: `defaults`, then api, then route. The nearest wins key by key; header maps are merged by name; `none` wipes
//! what came from farther away.

use crate::actions::fallback::FallbackRule;
use crate::actions::mirror::MirrorRule;
use crate::cache::document::Cache;
use crate::compress::rules::CompressRule;
use crate::config::document::Inherited;
use crate::filters::auth::rules::Auth;
use crate::filters::cors::rules::CorsRules;
use crate::filters::limits::rules::Limits;
use crate::filters::rules::{
    BodyRule, ConcurrencyRule, FaultRule, HeaderRules, IpRules, RequestRules, ResponseRules,
};
use crate::filters::{DEFAULT_MAX, rules};
use crate::route::Timeouts;
use crate::route::retry::{Retry, document};
use crate::value::{At, ByteSize, HeaderKey, Map, OrNone, Spanned, Template};

/// What holds for one route.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Who may call, if anybody said.
    pub auth: Option<Spanned<Auth>>,
    /// Limits, and how many levels below `defaults` they are written: 0, 1 for an API, 2 for a route.
    pub limits: Option<(usize, Spanned<Limits>)>,
    /// Pages of other origins.
    pub cors: Option<Spanned<CorsRules>>,
    /// Address rules.
    pub ip: Option<Spanned<IpRules>>,
    /// Timeouts.
    pub timeouts: Spanned<Timeouts>,
    /// Retries.
    pub retry: Spanned<Retry>,
    /// Most bytes of a body.
    pub body: Option<Spanned<ByteSize>>,
    /// How many at once.
    pub concurrency: Option<Spanned<ConcurrencyRule>>,
    /// Faults for tests.
    pub fault: Option<Spanned<FaultRule>>,
    /// Copies of requests.
    pub mirror: Option<Spanned<MirrorRule>>,
    /// What is answered when the upstream fails.
    pub fallback: Option<Spanned<FallbackRule>>,
    /// Compression of answers.
    pub compress: Option<Spanned<CompressRule>>,
    /// Translation of gRPC-Web.
    pub grpc_web: bool,
    /// Cache.
    pub cache: Option<Spanned<Cache>>,
    /// Request rules.
    pub request: Spanned<RequestRules>,
    /// Response rules.
    pub response: Spanned<ResponseRules>,
}

impl Effective {
    /// From the farthest level to the nearest.
    pub fn new(levels: &[Inherited<'_>]) -> Effective {
        Effective {
            auth: nearest(levels, |level| level.auth).cloned(),
            limits: limits(levels),
            cors: nearest(levels, |level| level.cors).and_then(switched_on),
            ip: nearest(levels, |level| level.ip).and_then(switched_on),
            timeouts: nearest(levels, |level| level.timeouts)
                .map_or(Spanned::built_in(Timeouts::default()), timeouts),
            retry: nearest(levels, |level| level.retry).map_or(Spanned::built_in(Retry::default()), retry),
            body: body(nearest(levels, |level| level.body)),
            concurrency: nearest(levels, |level| level.concurrency).and_then(switched_on),
            fault: nearest(levels, |level| level.fault).and_then(switched_on),
            mirror: nearest(levels, |level| level.mirror).and_then(switched_on),
            fallback: nearest(levels, |level| level.fallback).and_then(switched_on),
            compress: nearest(levels, |level| level.compress).and_then(switched_on),
            grpc_web: nearest(levels, |level| level.grpc_web).is_some_and(|on| on.value),
            cache: nearest(levels, |level| level.cache).and_then(switched_on),
            request: merged(levels, |level| level.request, merge_request),
            response: merged(levels, |level| level.response, merge_response),
        }
    }
}

impl Effective {
    /// Whether everybody may call.
    pub fn is_public(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.value == Auth::Public)
    }
}

fn nearest<'a, T>(
    levels: &[Inherited<'a>],
    setting: impl Fn(&Inherited<'a>) -> Option<&'a T>,
) -> Option<&'a T> {
    levels.iter().rev().find_map(setting)
}

fn limits(levels: &[Inherited<'_>]) -> Option<(usize, Spanned<Limits>)> {
    let level = levels.iter().rposition(|level| level.limits.is_some())?;
    let limits = levels.get(level)?.limits?;
    Some((level, limits.clone())).filter(|_| !limits.value.0.is_empty())
}

fn switched_on<T: Clone>(setting: &Spanned<OrNone<T>>) -> Option<Spanned<T>> {
    setting.value.on().map(|on| Spanned { value: on.clone(), at: setting.at })
}

fn timeouts(written: &Spanned<rules::Timeouts>) -> Spanned<Timeouts> {
    let default = Timeouts::default();
    let rules::Timeouts { connect, response, idle, stream_idle, deadline, websocket_lifetime } =
        &written.value;
    let value = Timeouts {
        connect: connect.map_or(default.connect, |span| span.0),
        response: response.map_or(default.response, |span| span.0),
        idle: idle.map_or(default.idle, |span| span.0),
        stream_idle: stream_idle.map_or(default.stream_idle, |span| span.0),
        deadline: deadline.map(|span| span.0),
        websocket_lifetime: websocket_lifetime.map(|span| span.0),
    };
    Spanned { value, at: written.at }
}

fn retry(written: &Spanned<OrNone<document::Retry>>) -> Spanned<Retry> {
    Spanned { value: written.value.on().map_or_else(Retry::never, Retry::new), at: written.at }
}

fn body(setting: Option<&Spanned<OrNone<BodyRule>>>) -> Option<Spanned<ByteSize>> {
    match setting {
        None => Some(Spanned::built_in(DEFAULT_MAX)),
        Some(setting) => {
            setting.value.on().map(|rule| Spanned { value: rule.max.unwrap_or(DEFAULT_MAX), at: setting.at })
        }
    }
}

fn merged<'a, T: Clone + Default + 'a>(
    levels: &[Inherited<'a>],
    setting: impl Fn(&Inherited<'a>) -> Option<&'a Spanned<OrNone<T>>>,
    merge: impl Fn(T, &T) -> T,
) -> Spanned<T> {
    levels.iter().filter_map(setting).fold(Spanned { value: T::default(), at: At::NOWHERE }, |far, near| {
        let value = near.value.on().map_or_else(T::default, |rules| merge(far.value, rules));
        Spanned { value, at: near.at }
    })
}

fn merge_request(far: RequestRules, near: &RequestRules) -> RequestRules {
    let near = near.clone();
    RequestRules {
        headers: merge_headers(far.headers, near.headers),
        path: near.path.or(far.path),
        query: near.query.or(far.query),
        method: near.method.or(far.method),
        host: near.host.or(far.host),
        forwarded: near.forwarded.or(far.forwarded),
    }
}

fn merge_response(far: ResponseRules, near: &ResponseRules) -> ResponseRules {
    ResponseRules { headers: merge_headers(far.headers, near.headers.clone()) }
}

/// What the nearer rules say of a name replaces all that the farther ones said of it.
fn merge_headers(mut far: HeaderRules, near: HeaderRules) -> HeaderRules {
    let said: Vec<&HeaderKey> = near
        .remove
        .iter()
        .chain(near.rename.iter().map(|(from, _)| &from.value))
        .chain(
            [&near.default, &near.set, &near.add]
                .into_iter()
                .flat_map(|map| map.iter().map(|(key, _)| &key.value)),
        )
        .collect();
    let unsaid = |key: &HeaderKey| !said.contains(&key);
    far.remove.retain(unsaid);
    far.rename.0.retain(|(from, _)| unsaid(&from.value));
    for map in [&mut far.default, &mut far.set, &mut far.add] {
        map.0.retain(|(key, _)| unsaid(&key.value));
    }
    HeaderRules {
        preset: near.preset.or(far.preset),
        remove: joined(far.remove, near.remove),
        rename: Map(joined(far.rename.0, near.rename.0)),
        default: joined_map(far.default, near.default),
        set: joined_map(far.set, near.set),
        add: joined_map(far.add, near.add),
    }
}

fn joined<T>(mut far: Vec<T>, near: Vec<T>) -> Vec<T> {
    far.extend(near);
    far
}

fn joined_map(
    far: Map<Spanned<Template>, HeaderKey>,
    near: Map<Spanned<Template>, HeaderKey>,
) -> Map<Spanned<Template>, HeaderKey> {
    Map(joined(far.0, near.0))
}
