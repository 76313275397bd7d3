//! `proxy`: sends the request to an upstream, or to one of several by weight (RT-12).

use super::to::Split;
use crate::build::{Bind, Build};
use crate::exchange::{Exchange, RequestHead, cookie, query_value};
use crate::observe::metrics::UpstreamMetrics;
use crate::upstream::Upstream;
use crate::value::{At, Code, Issue, Issues, Key, Name, Percent, Spanned};
use http::{HeaderName, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;

/// One or several upstreams.
pub struct Proxy {
    arms: Vec<Arm>,
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
    /// Its share.
    pub share: Percent,
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
        let arm = Arm::new(name, Percent(10_000), at, params, build)?;
        Ok(Proxy { arms: vec![arm], sticky: None, force: None, expose: None })
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
        let arms: Vec<Arm> = arms
            .iter()
            .filter_map(|(name, share)| issues.take(Arm::new(name, *share, name.at, bind.params, build)))
            .collect();
        let header =
            |choice: &Option<super::to::HeaderChoice>| choice.as_ref().map(|choice| choice.header.0.clone());
        Some(Proxy { arms, sticky, force: header(&split.force), expose: header(&split.expose) })
    }

    /// The arms.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The arm for this request and its number: the one it forces, else the one its key belongs to, else one at random by
    /// weight.
    pub fn choose(&self, request: &RequestHead, x: &Exchange) -> Option<(usize, &Arm)> {
        if let [only] = self.arms.as_slice() {
            return Some((0, only));
        }
        let mut arms = self.arms.iter().enumerate();
        if let Some(forced) = self.force.as_ref().and_then(|name| request.headers.get(name))
            && let Some(arm) = arms.clone().find(|(_, arm)| arm.value == forced)
        {
            return Some(arm);
        }
        let key = self.sticky.as_ref().and_then(|sticky| sticky.hash(request, x));
        let point = key.unwrap_or_else(crate::tasks::random) % 10_000;
        let mut below = 0;
        arms.find(|(_, arm)| {
            below += u64::from(arm.share.0);
            point < below
        })
    }

    /// How the arm of a split came to be chosen, for `explain`.
    pub fn explain(&self, request: &RequestHead, x: &Exchange, arm: &Arm) -> String {
        if self.arms.len() == 1 {
            return arm.name.to_string();
        }
        let forced = self.force.as_ref().is_some_and(|name| request.headers.get(name) == Some(&arm.value));
        let sticky = self.sticky.as_ref().filter(|sticky| sticky.hash(request, x).is_some());
        match (forced, sticky) {
            (true, _) => format!("{} (split {}, forced)", arm.name, arm.share),
            (_, Some(sticky)) => format!("{} (split {}, sticky {})", arm.name, arm.share, sticky.key),
            _ => format!("{} (split {}, at random)", arm.name, arm.share),
        }
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        match self.arms.as_slice() {
            [only] => only.name.to_string(),
            arms => {
                arms.iter().map(|arm| format!("{} {}", arm.name, arm.share)).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl Arm {
    fn new(name: &Name, share: Percent, at: At, params: &[&str], build: &Build) -> Result<Arm, Issue> {
        let (upstream, key) = build.upstream(name, at)?;
        let key = key.map(|key| Hashed::new(&key.value, params));
        let metrics = build.metrics().upstream(name.as_str());
        let value = HeaderValue::from_str(name.as_str()).unwrap_or(HeaderValue::from_static(""));
        Ok(Arm { name: name.as_str().into(), value, upstream, share, metrics, key })
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

/// FNV-1a (64 bit) with a final mix: the same on every node, so that all send a client to the same place.
fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_same_everywhere() {
        assert_eq!(stable_hash(b""), 17_058_014_651_485_797_458);
        assert_ne!(stable_hash(b"a") % 10_000, stable_hash(b"b") % 10_000);
    }
}
