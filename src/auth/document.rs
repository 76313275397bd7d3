//! Providers of identity, as written.

use crate::value::{
    ByteSize, HeaderKey, Map, OneOrMany, Positive, Secret, Short, Span, Spanned, at_least_one, short_value,
    text_value,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One way to prove who calls: exactly one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Signed tokens (RFC 7519), verified here.
    Jwt(Box<Jwt>),
    /// Keys of consumers.
    ApiKey(ApiKey),
    /// Opaque tokens, which the authorization server is asked about (RFC 7662).
    Introspection(Box<Introspection>),
    /// Another service decides.
    Forward(Box<Forward>),
    /// Names and passwords (RFC 7617).
    Basic(Basic),
    /// Certificates that clients show.
    ClientCert(ClientCert),
}

impl Provider {
    /// Where requests carry its credential, if that can be chosen.
    pub fn credential(&self) -> Option<TokenFrom> {
        match self {
            Provider::Jwt(jwt) => Some(jwt.from.clone()),
            Provider::Introspection(introspection) => Some(introspection.from.clone()),
            Provider::ApiKey(ApiKey { header, query, cookie, .. }) => {
                Some(TokenFrom { header: header.clone(), query: query.clone(), cookie: cookie.clone() })
            }
            Provider::Forward(_) | Provider::Basic(_) | Provider::ClientCert(_) => None,
        }
    }
}

/// Signed tokens. They must say when they expire (`exp`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What `iss` must be, exactly.
    pub issuer: Spanned<String>,
    /// What `aud` must have one of; the word `any` skips the check.
    pub audience: Spanned<OneOrMany<String>>,
    /// Where the keys are: `discovery` (default: found through the issuer), an `https` URL, or the path of a JWK(S) file.
    pub jwks: Option<Spanned<Jwks>>,
    /// Path of a public key or certificate in PEM, instead of `jwks`.
    pub pem: Option<Spanned<PathBuf>>,
    /// The shared secret of HS256, HS384 or HS512, instead of `jwks`; at least as long as the hash.
    pub secret: Option<Spanned<Secret>>,
    /// Algorithms that are accepted. Default: `RS256`, `ES256`; with `secret`: `HS256`.
    pub algorithms: Option<Spanned<Vec<Spanned<Algorithm>>>>,
    /// What `typ` of the token may be, besides being absent: default `JWT` and `at+jwt`; `any` skips the check.
    #[serde(default, deserialize_with = "at_least_one")]
    pub typ: Option<OneOrMany<String>>,
    /// How far clocks may differ. Default `30s`.
    pub skew: Option<Spanned<Span>>,
    /// Where the token is. Default: `Authorization: Bearer`.
    #[serde(default)]
    pub from: TokenFrom,
    /// Longest token. Default `8KiB`.
    pub max_size: Option<Positive<ByteSize>>,
    /// How often the keys are fetched; at least twice in `stale_max`. Default `10m`.
    pub refresh: Option<Spanned<Positive<Span>>>,
    /// Shortest time between two fetches because of an unknown `kid`. Default `30s`.
    pub cooldown: Option<Positive<Span>>,
    /// How long the last good keys are used when they cannot be fetched; then 503. Default `24h`.
    pub stale_max: Option<Positive<Span>>,
    /// How long a fetch of keys may take. Default `5s`.
    pub timeout: Option<Positive<Span>>,
    /// CA certificates in PEM for the fetch. Default: those of the system.
    pub ca: Option<Spanned<PathBuf>>,
    /// Claims that must hold, else 403.
    #[serde(default)]
    pub require: Map<ClaimRule, String>,
    /// Claim that names the consumer, such as `sub` (default) or `app.client`.
    pub consumer: Option<String>,
    /// Header fields for the upstream and the claims they carry. Copies that clients send are always removed.
    #[serde(default)]
    pub forward: Map<String, HeaderKey>,
    /// Whether the upstream does not get the token. Default `false`.
    #[serde(default)]
    pub hide: bool,
    /// Verified tokens that are remembered until they expire; 0 remembers none. Default 10000.
    pub cache: Option<u32>,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jwks {
    /// Found through `/.well-known/openid-configuration` of the issuer.
    Discovery,
    /// Fetched.
    Url(String),
    /// Read from a file.
    File(PathBuf),
}

impl FromStr for Jwks {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "discovery" {
            return Ok(Jwks::Discovery);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Jwks::Url(text.to_owned()));
        }
        if text.is_empty() || text.contains("://") {
            return Err(format!(
                "`{text}` is no place for keys\nhelp: write `discovery`, an http(s) URL or a path"
            ));
        }
        Ok(Jwks::File(text.into()))
    }
}

impl fmt::Display for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Jwks::Discovery => f.write_str("discovery"),
            Jwks::Url(url) => f.write_str(url),
            Jwks::File(path) => path.display().fmt(f),
        }
    }
}

text_value!(Jwks, "Jwks", pattern: r"^.+$", "`discovery`, a URL or the path of a JWK(S) file");

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA with P-256 and SHA-256.
    ES256,
    /// ECDSA with P-384 and SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// Where a token is: one or several of these; the first that the request has counts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFrom {
    /// A header field; `Authorization` needs the scheme `Bearer`, others carry the bare token.
    pub header: Option<HeaderKey>,
    /// A cookie.
    pub cookie: Option<String>,
    /// A query parameter; it is always removed before the upstream sees the request.
    pub query: Option<String>,
}

/// What a claim must be. Short: its value.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimRule {
    /// It has at least one of these.
    pub any: Vec<String>,
    /// It has all of these.
    pub all: Vec<String>,
}

/// What a claim must be, in full. A claim may be one value, a list, or (as `scope`) words separated by spaces.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClaimRuleInFull {
    /// It has at least one of these.
    #[serde(default, deserialize_with = "at_least_one")]
    any: OneOrMany<String>,
    /// It has all of these.
    #[serde(default, deserialize_with = "at_least_one")]
    all: OneOrMany<String>,
}

impl From<ClaimRuleInFull> for ClaimRule {
    fn from(full: ClaimRuleInFull) -> Self {
        ClaimRule { any: full.any.0, all: full.all.0 }
    }
}

impl Short for ClaimRule {
    const SHORT: &'static str = "the value it must have";
    fn from_short(text: &str) -> Result<Self, String> {
        Ok(ClaimRule { any: Vec::new(), all: vec![text.to_owned()] })
    }
    fn from_bool(word: bool) -> Option<Self> {
        Some(ClaimRule { any: Vec::new(), all: vec![word.to_string()] })
    }
}

short_value!(ClaimRule, long: ClaimRuleInFull);

/// Keys of consumers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Header field that carries the key. Default `x-api-key`, unless `query` or `cookie` is given. `authorization` needs
    /// the scheme `Bearer`.
    pub header: Option<HeaderKey>,
    /// Query parameter that carries it.
    pub query: Option<String>,
    /// Cookie that carries it.
    pub cookie: Option<String>,
    /// Whether the upstream does not get the key. Default `true`.
    pub hide: Option<bool>,
    /// Header field that tells the upstream the consumer's name.
    pub forward: Option<HeaderKey>,
}

/// Opaque tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// The introspection endpoint.
    pub url: Spanned<String>,
    /// Who tollgate is there.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Where the token is. Default: `Authorization: Bearer`.
    #[serde(default)]
    pub from: TokenFrom,
    /// Longest time an answer is remembered; an active token never beyond its `exp`. Default `60s`; `0s` remembers nothing.
    pub cache: Option<Span>,
    /// How long it is remembered that a token is not active. Default `5s`.
    pub negative: Option<Span>,
    /// How long an answer may take; then 503. Default `2s`.
    pub timeout: Option<Positive<Span>>,
    /// CA certificates in PEM. Default: those of the system.
    pub ca: Option<Spanned<PathBuf>>,
    /// What `iss` must be, if the answer has one.
    pub issuer: Option<String>,
    /// What `aud` must have one of.
    #[serde(default, deserialize_with = "at_least_one")]
    pub audience: Option<OneOrMany<String>>,
    /// Claims that must hold, else 403.
    #[serde(default)]
    pub require: Map<ClaimRule, String>,
    /// Member that names the consumer: default `sub`, or `client_id` where there is no `sub`.
    pub consumer: Option<String>,
    /// Header fields for the upstream and the members they carry.
    #[serde(default)]
    pub forward: Map<String, HeaderKey>,
    /// Whether the upstream does not get the token. Default `false`.
    #[serde(default)]
    pub hide: bool,
}

/// Another service decides: 2xx lets the request pass, anything else is relayed to the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where it is asked, with a `GET` that carries `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`, `-For`.
    pub url: Spanned<String>,
    /// Request headers it gets. Default `authorization` and `cookie`.
    pub send: Option<Vec<HeaderKey>>,
    /// Headers of its answer that go upstream. Copies that clients send are always removed.
    #[serde(default)]
    pub copy: Vec<HeaderKey>,
    /// Header of its answer that names the consumer.
    pub consumer: Option<HeaderKey>,
    /// How long an answer may take; then 503. Default `2s`.
    pub timeout: Option<Positive<Span>>,
    /// How long an answer is remembered for the same method, host, path, query and sent headers. Default: not at all.
    pub cache: Option<Span>,
    /// Largest answer that is relayed. Default `64KiB`.
    pub max_body: Option<Positive<ByteSize>>,
    /// CA certificates in PEM. Default: those of the system.
    pub ca: Option<Spanned<PathBuf>>,
}

/// Names and passwords.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// Users and their password hashes: argon2id or bcrypt (`$argon2id$…`, `$2b$…`).
    pub users: Spanned<Map<Spanned<Secret>, String>>,
    /// Text of the challenge. Default `tollgate`.
    pub realm: Option<String>,
    /// Header field that tells the upstream the user's name.
    pub forward: Option<HeaderKey>,
    /// Whether the upstream does not get the password. Default `true`.
    pub hide: Option<bool>,
    /// How long a right password is remembered, so that it need not be hashed again. Default `60s`.
    pub cache: Option<Span>,
}

/// Certificates that clients show on listeners with `tls: { client_cert: … }`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCert {
    /// What of the certificate names the consumer. Of several, the first that names one counts. Default: `san_dns`, `san_uri`,
    /// `subject`, `fingerprint`.
    #[serde(default, deserialize_with = "at_least_one")]
    pub consumer: OneOrMany<CertName>,
    /// Header field that tells the upstream the consumer's name.
    pub forward: Option<HeaderKey>,
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertName {
    /// The whole subject as RFC 4514 writes it, such as `CN=app,O=Example`.
    Subject,
    /// The common name in the subject.
    SubjectCn,
    /// A host among the alternative names.
    SanDns,
    /// A URI among the alternative names, such as `spiffe://example/app`.
    SanUri,
    /// A mail address among the alternative names.
    SanEmail,
    /// `sha256:` and the hexadecimal digits of the certificate's digest, in lower case.
    Fingerprint,
}

/// What becomes of client addresses whose credentials are refused again and again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Refused credentials before an address is blocked. Default 10.
    pub failures: Option<Positive<u32>>,
    /// In how long. Default `1m`.
    pub within: Option<Positive<Span>>,
    /// How long it is blocked; twice as long with each further time. Default `1m`.
    pub block: Option<Positive<Span>>,
    /// The longest it is blocked, no less than `block`. Default `15m`, or `block` where that is longer.
    pub max_block: Option<Spanned<Positive<Span>>>,
}

impl Guard {
    /// The first block.
    pub fn first_block(&self) -> Span {
        self.block.map_or(Span::secs(60), |block| *block)
    }

    /// The longest block.
    pub fn longest_block(&self) -> Span {
        self.max_block.map_or(self.first_block().max(Span::secs(900)), |max| *max.value)
    }
}
