//! Who is calling: consumers with their plans and tags, and the identity that a request has proven.

pub mod document;

use crate::value::Name;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Someone the operator knows by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The plan, by its place among the plans of the configuration.
    pub plan: Option<usize>,
    /// Groups the consumer belongs to.
    pub tags: Vec<Name>,
}

/// What a token says of its bearer.
pub type Claims = Map<String, Value>;

/// Who a request comes from, as far as it has proven.
#[derive(Debug)]
pub struct Identity {
    /// The name that limits `per consumer` and the log go by: the consumer's, or what the credential calls its bearer.
    pub subject: Arc<str>,
    /// The consumer of the configuration, if the subject is one.
    pub consumer: Option<Arc<Consumer>>,
    /// The provider that accepted the credential.
    pub provider: Arc<str>,
    /// Which credential of the subject, as limits `per credential` and the log go by: never the secret itself.
    pub credential: Arc<str>,
    /// Claims of the token, where there is one.
    pub claims: Option<Claims>,
    /// Header fields that tell the upstream of the caller; copies that the client sent are removed before.
    pub forward: Vec<(HeaderName, HeaderValue)>,
    /// Until when the credential is good, in seconds since 1970, if it says so.
    pub expires: Option<u64>,
}

impl Identity {
    /// Somebody who is this consumer, because `provider` says so.
    pub fn of_consumer(consumer: &Arc<Consumer>, provider: &str) -> Identity {
        Identity {
            subject: consumer.name.clone(),
            consumer: Some(consumer.clone()),
            provider: provider.into(),
            credential: "".into(),
            claims: None,
            forward: Vec::new(),
            expires: None,
        }
    }
}

/// All consumers, found by what credentials call them.
#[derive(Debug, Default)]
pub struct Consumers(HashMap<Arc<str>, Arc<Consumer>>);

impl Consumers {
    /// From consumers and the names each is known by.
    pub fn new(consumers: impl IntoIterator<Item = (Arc<str>, Arc<Consumer>)>) -> Self {
        Consumers(consumers.into_iter().collect())
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|consumer| &*consumer.name)
    }

    /// The consumer that is called so.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.0.get(name)
    }
}

/// What stands at a path of names in claims: `app.tenant`, or one name that contains dots.
pub fn claim<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    match claims.get(first)? {
        Value::Object(inner) => claim(inner, rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_path() {
        let claims: Claims =
            serde_json::from_str(r#"{"app":{"tenant":"t1","deep":{"er":7}},"https://x.y/z":"url"}"#).unwrap();
        assert_eq!(claim(&claims, "app.tenant"), Some(&Value::from("t1")));
        assert_eq!(claim(&claims, "app.deep.er"), Some(&Value::from(7)));
        assert_eq!(claim(&claims, "https://x.y/z"), Some(&Value::from("url")));
        assert_eq!(claim(&claims, "app.tenant.more"), None);
        assert_eq!(claim(&claims, "nobody"), None);
    }
}
