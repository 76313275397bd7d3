//! Whose counter a request belongs to.

use super::rules::{OnMissing, Per, PerKey};
use crate::exchange::{Exchange, RequestHead, cookie, query_value};
use crate::value::query::decoded_text;
use smallvec::SmallVec;
use std::net::IpAddr;

/// The bytes a request is counted by.
pub(super) type Bytes = SmallVec<[u8; 48]>;

/// Longer keys are counted by their digest.
const LONGEST: usize = 200;

/// Stands between the values of several keys; no value contains it, because header values cannot and others are escaped.
const BETWEEN: u8 = 0x1f;

/// What a request is counted by.
pub(super) enum Keyed {
    /// These bytes.
    By(Bytes),
    /// Nothing, and so it is not limited.
    Skip,
    /// Nothing, and so it is refused.
    Deny,
}

/// The keys of a limit for one route.
#[derive(Debug)]
pub(super) struct Keys {
    per: Vec<Bound>,
    on_missing: OnMissing,
    scope: Box<[u8]>,
}

#[derive(Debug)]
struct Bound {
    key: PerKey,
    /// Number of the path parameter.
    param: usize,
}

impl Keys {
    /// For a route with these path parameters; what is counted `per route` and `per api` is told apart by these names.
    pub(super) fn new(per: &Per, on_missing: OnMissing, api: &str, route: &str, params: &[&str]) -> Self {
        let bound = per.0.iter().map(|key| {
            let param = match key {
                PerKey::Param(name) => params.iter().position(|param| param == name),
                _ => None,
            };
            Bound { key: key.clone(), param: param.unwrap_or(usize::MAX) }
        });
        let mut scope = Vec::new();
        if per.0.contains(&PerKey::Route) {
            scope.extend_from_slice(format!("{api}.{route}").as_bytes());
        } else if per.0.contains(&PerKey::Api) {
            scope.extend_from_slice(api.as_bytes());
        }
        Keys { per: bound.collect(), on_missing, scope: scope.into() }
    }

    /// Whether requests are told apart by just this.
    pub(super) fn is_per(&self, per: &Per) -> bool {
        self.per.iter().map(|bound| &bound.key).eq(&per.0)
    }

    /// What this request is counted by.
    pub(super) fn of(&self, request: &RequestHead, x: &Exchange) -> Keyed {
        let mut bytes = Bytes::from_slice(&self.scope);
        for bound in &self.per {
            if !bytes.is_empty() {
                bytes.push(BETWEEN);
            }
            if bound.push(&mut bytes, request, x).is_none() {
                match self.on_missing {
                    OnMissing::Deny => return Keyed::Deny,
                    OnMissing::Skip => return Keyed::Skip,
                    OnMissing::Ip => {
                        bytes = Bytes::from_slice(&self.scope);
                        bytes.extend_from_slice(b"\x1fip\x1f");
                        push_address(&mut bytes, x.client_ip);
                        break;
                    }
                }
            }
        }
        if bytes.len() > LONGEST {
            let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
            bytes = Bytes::from_slice(digest.as_ref());
        }
        Keyed::By(bytes)
    }
}

impl Bound {
    /// Appends the value; nothing when the request has none. An empty value is none.
    fn push(&self, bytes: &mut Bytes, request: &RequestHead, x: &Exchange) -> Option<()> {
        let text = match &self.key {
            PerKey::Route | PerKey::Api | PerKey::Global => return Some(()),
            PerKey::ClientIp => {
                push_address(bytes, x.client_ip);
                return Some(());
            }
            PerKey::Header(name) => request.headers.get(name)?.as_bytes(),
            PerKey::Cookie(name) => cookie(&request.headers, name)?.as_bytes(),
            PerKey::Query(name) => {
                let raw = query_value(request.uri.query(), name)?;
                // One value must not be many by being written in different ways. What would separate keys stays escaped.
                let value = Some(decoded_text(raw)).filter(|value| !value.as_bytes().contains(&BETWEEN));
                return push(bytes, value.as_deref().unwrap_or(raw).as_bytes());
            }
            PerKey::Param(_) => x.params.value(request.uri.path(), self.param)?.as_bytes(),
            PerKey::Consumer => x.identity.as_ref()?.subject.as_bytes(),
            PerKey::Credential => {
                let identity = x.identity.as_ref()?;
                bytes.extend_from_slice(identity.subject.as_bytes());
                bytes.push(b'/');
                identity.credential.as_bytes()
            }
            PerKey::Claim(path) => {
                let value = x.claim(path)?;
                return push(bytes, value.as_bytes());
            }
        };
        push(bytes, text)
    }
}

fn push(bytes: &mut Bytes, value: &[u8]) -> Option<()> {
    bytes.extend_from_slice(value);
    (!value.is_empty()).then_some(())
}

/// An address in its bytes; of IPv6 the first 64 bits, because a client has all the others to choose from.
fn push_address(bytes: &mut Bytes, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => bytes.extend_from_slice(&v4.octets()),
            None => bytes.extend(v6.octets().into_iter().take(8)),
        },
    }
}
