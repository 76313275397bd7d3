//! A `jwt` provider as written, made ready.

use super::Static;
use super::keys::{KeySet, MOST_BYTES};
use super::verify::{Spec, Verifier};
use crate::auth::claims::{Forwarding, Require};
use crate::auth::credential::TokenSource;
use crate::auth::document::{Algorithm, Jwks, Jwt};
use crate::value::issue::{Code, Issue};
use crate::value::{At, ByteSize};
use std::io::Read;
use std::path::Path;

/// Longest token, where nothing is written.
const MAX_SIZE: ByteSize = ByteSize(8 * 1024);
/// Difference of clocks, where nothing is written, in seconds.
const SKEW: u64 = 30;
/// Verified tokens that are remembered, where nothing is written.
const CACHE: u32 = 10_000;
/// What `typ` may be, where nothing is written.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];
/// The word that skips a check.
const ANY: &str = "any";

/// What a `jwt` provider does, but for its keys.
#[derive(Debug)]
pub struct JwtSpec {
    /// Tells good tokens from others.
    pub verifier: Verifier,
    /// Where the token is.
    pub from: TokenSource,
    /// Claims that must hold.
    pub require: Require,
    /// Path of the claim that names the consumer.
    pub consumer: String,
    /// Header fields for the upstream.
    pub forward: Forwarding,
    /// Whether the upstream does not get the token.
    pub hide: bool,
    /// Most verified tokens that are remembered.
    pub cache: usize,
}

impl JwtSpec {
    /// From what is written.
    ///
    /// # Errors
    /// The algorithms do not go with the kind of key, or no token could be accepted.
    pub fn new(written: &Jwt) -> Result<Self, Issue> {
        if written.audience.value.0.is_empty() {
            let issue = Issue::new(Code::EMPTY, "there is no audience, so no token would be accepted");
            return Err(issue.at(written.audience.at).help("write `audience: any` to skip the check"));
        }
        let any_or = |list: Vec<String>| (!list.iter().any(|word| word == ANY)).then_some(list);
        let spec = Spec {
            issuer: written.issuer.value.clone(),
            audience: any_or(written.audience.0.clone()),
            algorithms: algorithms(written)?,
            typ: match &written.typ {
                Some(typ) => any_or(typ.0.clone()),
                None => Some(TYPES.map(str::to_owned).to_vec()),
            },
            skew: written.skew.map_or(SKEW, |skew| skew.value.0.as_secs()),
            max_size: usize::try_from(written.max_size.map_or(MAX_SIZE, |size| *size).0)
                .unwrap_or(usize::MAX),
        };
        Ok(JwtSpec {
            verifier: Verifier::new(spec),
            from: TokenSource::from(&written.from),
            require: Require::from(&written.require),
            consumer: written.consumer.clone().unwrap_or_else(|| "sub".to_owned()),
            forward: Forwarding::from(&written.forward),
            hide: written.hide,
            cache: usize::try_from(written.cache.unwrap_or(CACHE)).unwrap_or(usize::MAX),
        })
    }
}

/// The algorithms that are accepted: those of a secret with a secret, the others with public keys (RFC 8725 section 3.1).
fn algorithms(written: &Jwt) -> Result<Vec<Algorithm>, Issue> {
    let has_secret = written.secret.is_some();
    let Some(list) = &written.algorithms else {
        let default =
            if has_secret { vec![Algorithm::HS256] } else { vec![Algorithm::RS256, Algorithm::ES256] };
        return Ok(default);
    };
    if list.is_empty() {
        let issue =
            Issue::new(Code::EMPTY, "there is no algorithm, so no token would be accepted").at(list.at);
        return Err(issue.help("leave `algorithms` out for the default"));
    }
    if let Some(odd) = list.iter().find(|algorithm| algorithm.is_hmac() != has_secret) {
        let (needs, help) = if has_secret {
            ("a public key", "with `secret` only HS256, HS384 and HS512 make sense")
        } else {
            ("a secret", "who can verify such tokens can also make them; write `secret` if that is meant")
        };
        let message = format!("`{:?}` needs {needs}", odd.value);
        return Err(Issue::new(Code::CONFLICT, message).at(odd.at).help(help));
    }
    Ok(list.iter().map(|algorithm| algorithm.value).collect())
}

impl Static {
    /// The keys that a provider has with it: of `secret`, `pem` or a file named by `jwks`; `None` when they must be fetched.
    /// Reads files, relative to `directory`.
    ///
    /// # Errors
    /// The keys cannot be read or used, or none is for the algorithms that are accepted.
    pub fn read(written: &Jwt, directory: &Path) -> Result<Option<Self>, Issue> {
        let (keys, at) = match (&written.secret, &written.pem, &written.jwks) {
            (Some(secret), ..) => (KeySet::from_secret(secret.expose().as_bytes()), secret.at),
            (_, Some(pem), _) => (file(directory, pem).and_then(|pem| KeySet::from_pem(&pem)), pem.at),
            (_, _, Some(jwks)) => match &jwks.value {
                Jwks::File(path) => {
                    (file(directory, path).and_then(|json| KeySet::from_jwks(&json)), jwks.at)
                }
                Jwks::Discovery | Jwks::Url(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        let keys = keys.map_err(|why| unusable(at, &why))?;
        let accepted = algorithms(written)?;
        if let Some(lacking) = accepted.iter().find(|algorithm| !keys.supports(**algorithm))
            && let Some(shortest) = lacking.shortest_secret()
        {
            return Err(unusable(at, &format!("`{lacking:?}` needs a secret of at least {shortest} bytes")));
        }
        if !accepted.iter().any(|algorithm| keys.supports(*algorithm)) {
            return Err(unusable(at, "none is for the algorithms that are accepted"));
        }
        Ok(Some(Static::new(keys)))
    }
}

fn unusable(at: At, why: &str) -> Issue {
    Issue::new(Code::BAD_VALUE, format!("these keys cannot be used: {why}")).at(at)
}

/// A file of keys; no more than could be of use is read.
fn file(directory: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let unreadable = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    let file = std::fs::File::open(directory.join(path)).map_err(unreadable)?;
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MOST_BYTES {
        Err(format!("the file is larger than {MOST_BYTES} bytes"))
    } else {
        Ok(bytes)
    }
}
