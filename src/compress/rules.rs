//! `compress` as it is written.

use super::Coding;
use crate::value::{
    ByteSize, Code, Issue, Issues, OneOrMany, Short, Spanned, at_least_one, short_value, text_value,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Shorter answers stay as they are: what they would save fits into the same packet.
pub(super) const MIN: u64 = 1024;

/// Who asks for more than this has mistaken the unit.
const LARGEST_MIN: u64 = 16 << 20;

/// What is text by another name, and worth it.
const TYPES: &[&str] = &[
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/yaml",
    "application/graphql",
    "application/manifest+json",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
    "image/bmp",
];

/// Compression of answers. Short: `true` compresses as browsers expect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompressRule {
    /// Content codings, the preferred one first.
    pub encodings: OneOrMany<Encoding>,
    /// Media types.
    pub types: OneOrMany<MediaType>,
    /// Least length.
    pub min: Option<Spanned<ByteSize>>,
}

/// Compression of answers in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CompressInFull {
    /// Content codings, of which the client's favourite is taken, and of equal ones the first. Default `[zstd, br, gzip]`.
    #[serde(default, deserialize_with = "at_least_one")]
    encodings: OneOrMany<Encoding>,
    /// Media types; `*` stands for any part without a slash. Default: text, JSON, JavaScript, XML, SVG, WebAssembly, YAML and
    /// uncompressed fonts and bitmaps. Server-sent events and gRPC are never compressed.
    #[serde(default, deserialize_with = "at_least_one")]
    types: OneOrMany<MediaType>,
    /// Answers that are known to be shorter stay as they are. Default `1KiB`.
    min: Option<Spanned<ByteSize>>,
}

impl From<CompressInFull> for CompressRule {
    fn from(full: CompressInFull) -> Self {
        let CompressInFull { encodings, types, min } = full;
        CompressRule { encodings, types, min }
    }
}

impl Short for CompressRule {
    const SHORT: &'static str = "`true`";
    fn from_short(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(encoding) => {
                Ok(CompressRule { encodings: OneOrMany(vec![encoding]), ..CompressRule::default() })
            }
            Err(_) => Err(format!(
                "`{text}` is no compression\nhelp: write `true`, or `{{ encodings: [zstd, br, gzip] }}`"
            )),
        }
    }
    fn from_bool(word: bool) -> Option<Self> {
        word.then(CompressRule::default)
    }
}

short_value!(CompressRule, long: CompressInFull);

impl CompressRule {
    /// What can hardly be meant.
    pub fn check(&self, issues: &mut Issues) {
        if let Some(min) = self.min.filter(|min| min.value.0 > LARGEST_MIN) {
            let message = format!("hardly any answer is as long as {}", min.value);
            let issue = Issue::new(Code::UNLIKELY, message).at(min.at);
            issues.push(
                issue.help("from about `1KiB` on compression saves something; `compress: none` turns it off"),
            );
        }
    }

    pub(super) fn codings(&self) -> Vec<Coding> {
        match self.encodings.0.as_slice() {
            [] => vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            encodings => encodings.iter().map(|encoding| encoding.0).collect(),
        }
    }

    pub(super) fn types(&self) -> Vec<MediaType> {
        match self.types.0.as_slice() {
            [] => TYPES.iter().filter_map(|text| text.parse().ok()).collect(),
            types => types.to_vec(),
        }
    }
}

/// A content coding by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(pub Coding);

impl FromStr for Encoding {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zstd" => Ok(Encoding(Coding::Zstd)),
            "br" => Ok(Encoding(Coding::Brotli)),
            "gzip" => Ok(Encoding(Coding::Gzip)),
            _ => Err(format!("`{text}` is no content coding\nhelp: write zstd, br or gzip")),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

text_value!(Encoding, "Encoding", pattern: r"^(zstd|br|gzip)$", "`zstd`, `br` or `gzip`");

/// A media type in which `*` may stand for a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    text: Box<str>,
    /// What stands before and after the `*`.
    ends: Option<(Box<str>, Box<str>)>,
}

impl MediaType {
    /// Whether the value of a `Content-Type` is of this type. What must not be held back never is.
    pub fn covers(&self, value: &[u8]) -> bool {
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let begins = |text: &str| {
            kind.get(..text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(text.as_bytes()))
        };
        if begins("text/event-stream") || begins("application/grpc") {
            return false;
        }
        match &self.ends {
            None => kind.eq_ignore_ascii_case(self.text.as_bytes()),
            Some((begin, end)) => {
                let last = kind.len().checked_sub(end.len()).and_then(|from| kind.get(from..));
                kind.len() >= begin.len() + end.len()
                    && begins(begin)
                    && last.is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
            }
        }
    }
}

impl FromStr for MediaType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&byte);
        let valid = text.split_once('/').is_some_and(|(kind, sub)| {
            [kind, sub].iter().all(|part| !part.is_empty() && part.bytes().all(is_token))
        });
        if !valid || text.matches('*').count() > 1 {
            return Err(format!(
                "`{text}` is no media type\nhelp: write for example `application/json` or `text/*`"
            ));
        }
        let ends = text.split_once('*').map(|(begin, end)| (begin.into(), end.into()));
        Ok(MediaType { text: text.into(), ends })
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_value!(MediaType, "MediaType", pattern: r"^[^/ ]+/[^/ ]+$", "a media type such as `text/*`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_part() {
        for (pattern, value, expected) in [
            ("text/*", "text/html; charset=utf-8", true),
            ("text/*", "TEXT/plain", true),
            ("text/*", "text/event-stream", false),
            ("text/*", "text/event-stream;charset=utf-8", false),
            ("application/*+json", "application/problem+json", true),
            ("application/*+json", "application/json", false),
            ("application/*", "application/grpc-web+proto", false),
            ("application/json", "application/json ;a=b", true),
            ("application/json", "application/jsonx", false),
            ("application/*+json", "application/+jso", false),
        ] {
            let pattern: MediaType = pattern.parse().unwrap();
            assert_eq!(pattern.covers(value.as_bytes()), expected, "{pattern} {value}");
        }
        for wrong in ["json", "a/b/c", "*/*", "text/ html", "/a", "a/", ""] {
            assert!(wrong.parse::<MediaType>().is_err(), "{wrong}");
        }
    }
}
