//! What claims must say, and which of them the upstream is told.

use super::Refusal;
use super::document::ClaimRule;
use crate::consumer::{Claims, claim};
use crate::reply::Kind;
use crate::value::{HeaderKey, Map};
use http::{HeaderName, HeaderValue};
use serde_json::Value;

/// Claims that must hold.
#[derive(Clone, Debug, Default)]
pub struct Require(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    path: String,
    any: Vec<String>,
    all: Vec<String>,
    /// Whether the claim is a scope: words separated by spaces (RFC 8693 section 4.2).
    is_scope: bool,
    refusal: Refusal,
}

impl From<&Map<ClaimRule, String>> for Require {
    fn from(written: &Map<ClaimRule, String>) -> Self {
        Require(written.iter().map(|(path, rule)| Rule::new(path, rule)).collect())
    }
}

impl Require {
    /// Checks claims.
    ///
    /// # Errors
    /// The first rule that does not hold, as a 403 (RFC 6750 section 3.1).
    pub fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        match self.0.iter().find(|rule| !rule.holds(claims)) {
            Some(rule) => Err(rule.refusal.clone()),
            None => Ok(()),
        }
    }
}

impl Rule {
    fn new(path: &str, written: &ClaimRule) -> Self {
        let ClaimRule { any, all } = written.clone();
        let is_scope = matches!(path.rsplit('.').next(), Some("scope" | "scp"));
        let refusal = if is_scope { lacks_scope(&any, &all) } else { lacks_claim() };
        Rule { path: path.to_owned(), any, all, is_scope, refusal }
    }

    /// A rule without values only wants the claim to be there.
    fn holds(&self, claims: &Claims) -> bool {
        let Some(value) = claim(claims, &self.path).filter(|value| !value.is_null()) else { return false };
        let has = |wanted: &String| has(value, wanted, self.is_scope);
        (self.any.is_empty() || self.any.iter().any(has)) && self.all.iter().all(has)
    }
}

/// Whether a claim is this value, or has it among others.
fn has(value: &Value, wanted: &str, is_scope: bool) -> bool {
    match value {
        Value::String(text) if is_scope => text.split(' ').any(|word| word == wanted),
        Value::String(text) => text == wanted,
        Value::Bool(truth) => wanted == if *truth { "true" } else { "false" },
        Value::Number(number) => number.to_string() == wanted,
        Value::Array(values) => values.iter().any(|value| !value.is_array() && has(value, wanted, false)),
        Value::Null | Value::Object(_) => false,
    }
}

fn lacks_scope(any: &[String], all: &[String]) -> Refusal {
    let words: Vec<&str> = all.iter().chain(any).map(String::as_str).collect();
    Refusal {
        kind: Kind::INSUFFICIENT_SCOPE,
        why: "scope",
        error: Some("insufficient_scope"),
        detail: "The token does not have the scope that is needed here.".into(),
        scope: (!words.is_empty() && words.iter().all(|word| is_scope_token(word))).then(|| words.join(" ")),
    }
}

fn lacks_claim() -> Refusal {
    Refusal {
        kind: Kind::FORBIDDEN,
        why: "claim",
        error: None,
        detail: "The token does not say what is needed here.".into(),
        scope: None,
    }
}

/// `scope-token` of RFC 6749 section 3.3; anything else cannot stand in a challenge.
fn is_scope_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// Claims that the upstream is told of in header fields.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    names: Vec<HeaderName>,
    /// The claims for `names`, in the same order.
    paths: Vec<String>,
}

impl From<&Map<String, HeaderKey>> for Forwarding {
    fn from(written: &Map<String, HeaderKey>) -> Self {
        let (names, paths) = written.iter().map(|(key, path)| (key.value.0.clone(), path.clone())).unzip();
        Forwarding { names, paths }
    }
}

impl Forwarding {
    /// The names of the fields: what clients send under them must be removed.
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// The fields for these claims. A claim that is missing, or that cannot be told truly in a field, has none.
    pub fn fields(&self, claims: &Claims) -> Vec<(HeaderName, HeaderValue)> {
        let pairs = self.names.iter().zip(&self.paths);
        pairs.filter_map(|(name, path)| Some((name.clone(), field_value(claim(claims, path)?)?))).collect()
    }
}

/// A claim as a field value. The upstream must read what the issuer wrote: white space at the ends, which HTTP drops, and
/// commas inside list members, which would read as more members, make it impossible.
fn field_value(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Array(values) => {
            let texts: Option<Vec<String>> = values.iter().map(scalar).collect();
            texts.filter(|texts| texts.iter().all(|text| is_plain(text) && !text.contains(',')))?.join(",")
        }
        one => scalar(one)?,
    };
    is_plain(&text).then(|| HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()).flatten()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.trim().len() == text.len() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Spanned;

    fn claims() -> Claims {
        serde_json::from_str(
            r#"{"scope":"read write","scp":["a","b"],"roles":["admin","ops"],"n":7,"f":1.5,"yes":true,"no":null,
                "app":{"tenant":"t1","scope":"deep er"},"text":"read write","obj":{},"nested":[["x"]],
                "crlf":"a\r\nx-admin: 1","nul":"a\u0000","space":" a","comma":["a,b"],"mixed":["a",1,true],
                "name":"José","empty":"","list":[],"bad":["a","\n"]}"#,
        )
        .unwrap()
    }

    fn require(path: &str, any: &[&str], all: &[&str]) -> Result<(), Refusal> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let rule = ClaimRule { any: texts(any), all: texts(all) };
        let rules = Map(vec![(Spanned::built_in(path.to_owned()), rule)]);
        Require::from(&rules).check(&claims())
    }

    #[test]
    fn rules_hold() {
        for (path, any, all) in [
            ("scope", &["x", "read"][..], &["write"][..]),
            ("scope", &[], &["read", "write"]),
            ("scp", &["b"], &["a"]),
            ("app.scope", &[], &["er"]),
            ("app.tenant", &["t1", "t2"], &[]),
            ("roles", &[], &["ops", "admin"]),
            ("n", &["7"], &[]),
            ("f", &[], &["1.5"]),
            ("yes", &[], &["true"]),
            ("text", &[], &["read write"]),
            ("obj", &[], &[]),
        ] {
            assert_eq!(require(path, any, all), Ok(()), "{path} {any:?} {all:?}");
        }
    }

    #[test]
    fn rules_do_not_hold() {
        for (path, any, all) in [
            ("scope", &["rea", "reads"][..], &[][..]),
            ("scope", &[], &["read", "admin"]),
            ("scope", &["read write"], &[]),
            ("text", &["read"], &[]),
            ("roles", &["adm"], &[]),
            ("nested", &["x"], &[]),
            ("no", &[], &[]),
            ("missing", &[], &[]),
            ("app", &["t1"], &[]),
        ] {
            assert!(require(path, any, all).is_err(), "{path} {any:?} {all:?}");
        }
    }

    #[test]
    fn a_lack_of_scope_says_what_is_needed() {
        let refusal = require("scope", &["x"], &["admin"]).unwrap_err();
        assert_eq!((refusal.kind, refusal.error), (Kind::INSUFFICIENT_SCOPE, Some("insufficient_scope")));
        assert_eq!(refusal.scope.as_deref(), Some("admin x"));
        assert_eq!(require("scope", &[], &["\"quoted"]).unwrap_err().scope, None);
        let refusal = require("roles", &["x"], &[]).unwrap_err();
        assert_eq!((refusal.kind, refusal.error, refusal.scope), (Kind::FORBIDDEN, None, None));
    }

    #[test]
    fn claims_become_fields_or_nothing() {
        for (path, value) in [
            ("app.tenant", Some("t1")),
            ("n", Some("7")),
            ("yes", Some("true")),
            ("roles", Some("admin,ops")),
            ("mixed", Some("a,1,true")),
            ("name", Some("José")),
            ("crlf", None),
            ("nul", None),
            ("space", None),
            ("comma", None),
            ("bad", None),
            ("empty", None),
            ("list", None),
            ("no", None),
            ("obj", None),
            ("nested", None),
            ("missing", None),
        ] {
            let key = HeaderKey(HeaderName::from_static("x-claim"));
            let forwarding = Forwarding::from(&Map(vec![(Spanned::built_in(key), path.to_owned())]));
            assert_eq!(forwarding.names(), [HeaderName::from_static("x-claim")]);
            let fields = forwarding.fields(&claims());
            let found = fields.first().map(|(_, value)| value.as_bytes());
            assert_eq!(found, value.map(str::as_bytes), "{path}");
        }
    }
}
