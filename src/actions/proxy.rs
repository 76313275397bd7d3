//! `proxy`: sends the request to an upstream, or to one of several by weight (RT-12).

use super::split::{Shares, stable_hash};
use super::to::Split;
use crate::build::{Bind, Build};
use crate::exchange::{Exchange, RequestHead, cookie, query_value};
use crate::observe::metrics::UpstreamMetrics;
use crate::upstream::Upstream;
use crate::value::{At, Code, Issue, Issues, Key, Name, Spanned};
use http::{HeaderName, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;

/// One or several upstreams.
pub struct Proxy {
    arms: Vec<Arm>,
    /// Only of several arms.
    shares: Option<Arc<Shares>>,
    sticky: Option<Hashed>,
    force: Option<HeaderName>,
    /// Header that tells the client its arm.
    pub expose: Option<HeaderName>,
}

/// One arm of a split.
pub struct Arm {
    /// The upstream's name.
    pub name: Arc<str>,
    /// The name as a field value.
    pub value: HeaderValue,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The upstream's metrics.
    pub metrics: UpstreamMetrics,
    /// What its requests are hashed by, when it balances by hash.
    pub key: Option<Hashed>,
}

impl Proxy {
    /// To one upstream.
    ///
    /// # Errors
    /// It is not defined.
    pub fn to_one(name: &Name, at: At, params: &[&str], build: &Build) -> Result<Proxy, Issue> {
        let arm = Arm::new(name, at, params, build)?;
        Ok(Proxy { arms: vec![arm], shares: None, sticky: None, force: None, expose: None })
    }

    /// To several, by weight.
    pub fn to_many(split: &Split, bind: Bind<'_>, build: &Build, issues: &mut Issues) -> Option<Proxy> {
        let arms = &split.arms.value;
        let sum: u32 = arms.iter().map(|(_, share)| u32::from(share.0)).sum();
        if sum != 10_000 {
            let message = format!("the shares of this split add up to {}%, not 100%", f64::from(sum) / 100.0);
            issues.push(Issue::new(Code::CONFLICT, message).at(split.arms.at));
        }
        if let Some(Spanned { value: Key::Param(name), at }) = &split.sticky
            && !bind.params.contains(&name.as_str())
        {
            issues.push(
                Issue::new(Code::BAD_TEMPLATE, format!("the path of this route has no parameter `{name}`"))
                    .at(*at),
            );
        }
        let sticky = split.sticky.as_ref().map(|key| Hashed::new(&key.value, bind.params));
        let key = format!("split {}.{}", bind.api, bind.route);
        let shares = build.keep(&key, |shares: &Shares| shares.is_of(arms), || Shares::new(arms));
        let arms: Vec<Arm> = arms
            .iter()
            .filter_map(|(name, _)| issues.take(Arm::new(name, name.at, bind.params, build)))
            .collect();
        let header =
            |choice: &Option<super::to::HeaderChoice>| choice.as_ref().map(|choice| choice.header.0.clone());
        let (force, expose) = (header(&split.force), header(&split.expose));
        Some(Proxy { arms, shares: Some(shares), sticky, force, expose })
    }

    /// Whether all requests go to this upstream.
    pub fn is_only(&self, name: &Name) -> bool {
        self.arms.iter().all(|arm| *arm.name == *name.as_str())
    }

    /// The arms.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The shares of the arms, when there are several.
    pub fn shares(&self) -> Option<&Shares> {
        self.shares.as_deref()
    }

    /// The arm for this request and its number: the one it forces, else the one its key belongs to, else one at random by
    /// weight.
    pub fn choose(&self, request: &RequestHead, x: &Exchange) -> Option<(usize, &Arm)> {
        if let [only] = self.arms.as_slice() {
            return Some((0, only));
        }
        if let Some(forced) = self.force.as_ref().and_then(|name| request.headers.get(name))
            && let Some(arm) = self.arms.iter().enumerate().find(|(_, arm)| arm.value == forced)
        {
            return Some(arm);
        }
        let shares = self.shares.as_ref()?;
        let number = match self.sticky.as_ref().and_then(|sticky| sticky.hash(request, x)) {
            Some(hash) => shares.of_client(hash)?,
            None => shares.drawn(crate::tasks::random())?,
        };
        Some((number, self.arms.get(number)?))
    }

    /// How the arm of a split came to be chosen, for `explain`.
    pub fn explain(&self, request: &RequestHead, x: &Exchange, number: usize, arm: &Arm) -> String {
        let Some(shares) = &self.shares else { return arm.name.to_string() };
        let forced = self.force.as_ref().is_some_and(|name| request.headers.get(name) == Some(&arm.value));
        let sticky = self.sticky.as_ref().filter(|sticky| sticky.hash(request, x).is_some());
        let share = shares.share(number);
        match (forced, sticky) {
            (true, _) => format!("{} (split {share}, forced)", arm.name),
            (_, Some(sticky)) => format!("{} (split {share}, sticky {})", arm.name, sticky.key),
            _ => format!("{} (split {share}, at random)", arm.name),
        }
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        let names = self.arms.iter().map(|arm| &*arm.name);
        let Some(shares) = &self.shares else { return names.collect::<Vec<_>>().join(", ") };
        let arms = names.enumerate().map(|(number, name)| format!("{name} {}", shares.share(number)));
        let changed = if shares.are_changed() { " (changed while running)" } else { "" };
        format!("{}{changed}", arms.collect::<Vec<_>>().join(", "))
    }
}

impl Arm {
    /// An upstream by name; what its requests are hashed by is bound to these path parameters.
    ///
    /// # Errors
    /// It is not defined.
    pub(super) fn new(name: &Name, at: At, params: &[&str], build: &Build) -> Result<Arm, Issue> {
        let (upstream, key) = build.upstream(name, at)?;
        let key = key.map(|key| Hashed::new(&key.value, params));
        let metrics = build.metrics().upstream(name.as_str());
        let value = HeaderValue::from_str(name.as_str()).unwrap_or(HeaderValue::from_static(""));
        Ok(Arm { name: name.as_str().into(), value, upstream, metrics, key })
    }

    /// What decides which target a request gets: a part of it, or the gateway's cookie.
    pub fn target_key(&self, request: &RequestHead, x: &Exchange) -> Option<[u8; 8]> {
        if let Some(sticky) = self.upstream.sticky() {
            return self.upstream.sticky_key(cookie(&request.headers, &sticky.name)?);
        }
        self.key.as_ref().and_then(|key| key.hash(request, x)).map(u64::to_le_bytes)
    }
}

/// A part of the request that is hashed.
pub struct Hashed {
    key: Key,
    param: usize,
}

impl Hashed {
    /// For routes with these path parameters. A parameter that the route does not have makes requests have no such part.
    pub fn new(key: &Key, params: &[&str]) -> Hashed {
        let param = match key {
            Key::Param(name) => params.iter().position(|param| param == name),
            _ => None,
        };
        Hashed { key: key.clone(), param: param.unwrap_or(usize::MAX) }
    }

    /// The hash; the same in every process and release. `None` when the request does not have that part.
    pub fn hash(&self, request: &RequestHead, x: &Exchange) -> Option<u64> {
        match &self.key {
            Key::ClientIp => Some(match x.client_ip {
                IpAddr::V4(v4) => stable_hash(&v4.octets()),
                IpAddr::V6(v6) => stable_hash(&v6.octets()),
            }),
            Key::Consumer => x.identity.as_ref().map(|identity| stable_hash(identity.subject.as_bytes())),
            Key::Path => Some(stable_hash(request.uri.path().as_bytes())),
            Key::Header(name) => request.headers.get(name).map(|value| stable_hash(value.as_bytes())),
            Key::Cookie(name) => cookie(&request.headers, name).map(|value| stable_hash(value.as_bytes())),
            Key::Query(name) => {
                query_value(request.uri.query(), name).map(|value| stable_hash(value.as_bytes()))
            }
            Key::Param(_) => {
                let value = x.params.value(request.uri.path(), self.param);
                value.map(|value| stable_hash(value.as_bytes()))
            }
        }
    }
}
