//! Keys that tokens are verified with.
//!
//! A key knows which algorithms it is for (RFC 8725 section 3.1): what a token says of its algorithm only picks among them.

use super::crypto::{Check, install};
use super::der;
use crate::auth::document::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::signature::Verifier;
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// Largest JWK set that is read, in bytes.
pub const MOST_BYTES: usize = 256 * 1024;
/// Most keys of a set that are used.
pub const MOST_KEYS: usize = 100;
/// Most keys that one token is tried with.
const MOST_TRIES: usize = 4;

/// Keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys of the set that cannot be used here.
    skipped: usize,
    /// Whether this is one key by itself, which is meant whatever a token calls it.
    is_alone: bool,
}

/// One key, ready for each algorithm it may be used with.
struct Key {
    id: Option<String>,
    checks: Vec<(Algorithm, Check)>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.checks.iter().map(|(algorithm, _)| algorithm).collect();
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &algorithms).finish()
    }
}

/// What comes of checking a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// One of the keys made it.
    Good,
    /// None of the keys that it may be from made it.
    Bad,
    /// The key exists, but is for other algorithms.
    WrongAlgorithm,
    /// No key has this id, and no key without one made it.
    UnknownKey,
    /// The token names no key, and too many fit to try them all.
    Ambiguous,
}

impl KeySet {
    /// From the bytes of a JWK set, or of a single JWK (RFC 7517). Keys that cannot be used are skipped and counted:
    /// private and symmetric ones, those for encryption, weak, broken and unknown ones.
    ///
    /// # Errors
    /// It is no JWK set, or too large; in words for the operator.
    pub fn from_jwks(json: &[u8]) -> Result<Self, String> {
        if json.len() > MOST_BYTES {
            return Err(format!("the JWK set is larger than {MOST_BYTES} bytes"));
        }
        let mut set: Value = serde_json::from_slice(json).map_err(|_| "this is not JSON".to_owned())?;
        let keys = match set.get_mut("keys").map(Value::take) {
            Some(Value::Array(keys)) => keys,
            None if set.get("kty").is_some() => vec![set],
            _ => return Err("this is no JWK set: it has no list `keys`".to_owned()),
        };
        let total = keys.len();
        let usable = keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key());
        let keys: Vec<Key> = usable.take(MOST_KEYS).collect();
        Ok(KeySet { skipped: total - keys.len(), keys, is_alone: false })
    }

    /// From a public key or an X.509 certificate in PEM. Of a certificate only the key counts, as with a bare key.
    ///
    /// # Errors
    /// There is no such thing in the text, or its key cannot be used; in words for the operator.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        let certificate = CertificateDer::from_pem_slice(pem);
        let public = match (&key, &certificate) {
            (Ok(key), _) => der::public_key(key),
            (_, Ok(certificate)) => der::certificate_key(certificate),
            _ => return Err("there is no `PUBLIC KEY` and no `CERTIFICATE` in it".to_owned()),
        };
        let material = match public.ok_or("the key is of a kind that is not supported")? {
            der::PublicKey::Rsa { modulus, exponent } => Material::rsa(modulus, exponent),
            der::PublicKey::P256(point) => Material::p256(point),
            der::PublicKey::P384(point) => Material::p384(point),
            der::PublicKey::Ed25519(key) => Material::ed25519(key),
        };
        let material =
            material.ok_or("the key is not valid, or too weak: RSA keys need 2048 to 8192 bits")?;
        material.key(None, |_| true).map(KeySet::of).ok_or_else(|| "the key cannot be used".to_owned())
    }

    /// From a shared secret: for each HMAC whose hash is not longer than the secret (RFC 7518 section 3.2).
    ///
    /// # Errors
    /// It is shorter than 32 bytes; in words for the operator.
    pub fn from_secret(secret: &[u8]) -> Result<Self, String> {
        let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].into_iter();
        let long_enough = |algorithm: &Algorithm| {
            algorithm.shortest_secret().is_some_and(|shortest| secret.len() >= shortest)
        };
        let algorithms = algorithms.filter(long_enough).collect();
        let material = Material { key: DecodingKey::from_secret(secret), algorithms };
        let key = material.key(None, |_| true);
        key.map(KeySet::of).ok_or_else(|| "the secret is shorter than the 32 bytes of HS256".to_owned())
    }

    fn of(key: Key) -> Self {
        KeySet { keys: vec![key], skipped: 0, is_alone: true }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key that could be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Number of keys that cannot be used and were left out.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Whether some key is for this algorithm.
    pub fn supports(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.check(algorithm).is_some())
    }

    /// Checks a signature with the keys it may be from. A token without `kid` may be from any key that fits its
    /// algorithm, and a key without id may have made any token.
    pub fn check(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Signature {
        let kid = kid.filter(|_| !self.is_alone);
        let named = || self.keys.iter().filter(|key| key.id.as_deref() == kid);
        let verdict = match kid {
            Some(_) if named().next().is_some() => return tried(named(), algorithm, message, signature),
            Some(_) => tried(self.keys.iter().filter(|key| key.id.is_none()), algorithm, message, signature),
            None => tried(self.keys.iter(), algorithm, message, signature),
        };
        if kid.is_some() && verdict != Signature::Good { Signature::UnknownKey } else { verdict }
    }
}

fn tried<'a>(
    keys: impl Iterator<Item = &'a Key>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &Vec<u8>,
) -> Signature {
    let mut verdict = Signature::WrongAlgorithm;
    for (number, check) in keys.filter_map(|key| key.check(algorithm)).enumerate() {
        if number == MOST_TRIES {
            return Signature::Ambiguous;
        }
        if check.verify(message, signature).is_ok() {
            return Signature::Good;
        }
        verdict = Signature::Bad;
    }
    verdict
}

impl Key {
    fn check(&self, algorithm: Algorithm) -> Option<&Check> {
        self.checks.iter().find(|(of, _)| *of == algorithm).map(|(_, check)| check)
    }
}

/// A key and the algorithms that its kind is for.
struct Material {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Material {
    /// RSA of 2048 to 8192 bits, the most that *ring* computes, with an odd exponent above 1.
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = modulus.get(zeros..)?;
        let bits = modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let zeros = exponent.iter().take_while(|byte| **byte == 0).count();
        let exponent = exponent.get(zeros..)?;
        let good = (2048..=8192).contains(&bits)
            && is_odd(modulus)
            && is_odd(exponent)
            && exponent != [1]
            && exponent.len() <= 4;
        let key = DecodingKey::from_rsa_raw_components(modulus, exponent);
        good.then(|| Material { key, algorithms: vec![RS256, RS384, RS512, PS256, PS384, PS512] })
    }

    /// An uncompressed point of P-256.
    fn p256(point: &[u8]) -> Option<Self> {
        let key = DecodingKey::from_ec_der(point);
        is_on_curve(&agreement::ECDH_P256, point)
            .then(|| Material { key, algorithms: vec![Algorithm::ES256] })
    }

    /// An uncompressed point of P-384.
    fn p384(point: &[u8]) -> Option<Self> {
        let key = DecodingKey::from_ec_der(point);
        is_on_curve(&agreement::ECDH_P384, point)
            .then(|| Material { key, algorithms: vec![Algorithm::ES384] })
    }

    fn ed25519(key: &[u8]) -> Option<Self> {
        let algorithms = vec![Algorithm::EdDSA];
        (key.len() == 32).then(|| Material { key: DecodingKey::from_ed_der(key), algorithms })
    }

    fn key(self, id: Option<String>, may: impl Fn(Algorithm) -> bool) -> Option<Key> {
        install();
        let algorithms = self.algorithms.into_iter().filter(|algorithm| may(*algorithm));
        let checks = algorithms
            .map(|algorithm| Some((algorithm, Check::new(algorithm.jws()?, &self.key).ok()?)))
            .collect::<Option<Vec<_>>>()?;
        (!checks.is_empty()).then_some(Key { id, checks })
    }
}

/// Whether a point is on its curve: *ring* tells only those who agree on a secret with it, so that is done once.
fn is_on_curve(algorithm: &'static agreement::Algorithm, point: &[u8]) -> bool {
    let Ok(mine) = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()) else { return false };
    agree_ephemeral(mine, &UnparsedPublicKey::new(algorithm, point), |_| ()).is_ok()
}

/// A JSON Web Key (RFC 7517 section 4), as far as verifying needs it. Certificates and addresses of certificates in it are
/// not looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part of any key: nothing that an issuer hands out.
    d: Option<Value>,
}

impl Jwk {
    fn key(self) -> Option<Key> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let may_verify = self.key_ops.as_ref().is_none_or(|may| may.iter().any(|may| may == "verify"));
        if !is_for_signatures || !may_verify || self.d.is_some() {
            return None;
        }
        let material = self.material()?;
        let alg = self.alg.as_deref();
        material.key(self.kid, |algorithm| alg.is_none_or(|alg| Algorithm::from_name(alg) == Some(algorithm)))
    }

    fn material(&self) -> Option<Material> {
        let decoded = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Material::rsa(&decoded(&self.n)?, &decoded(&self.e)?),
            ("EC", Some("P-256")) => Material::p256(&point(&decoded(&self.x)?, &decoded(&self.y)?, 32)?),
            ("EC", Some("P-384")) => Material::p384(&point(&decoded(&self.x)?, &decoded(&self.y)?, 48)?),
            ("OKP", Some("Ed25519")) => Material::ed25519(&decoded(&self.x)?),
            // `oct` among them: a secret that is published is none (RFC 8725 section 3.2).
            _ => None,
        }
    }
}

/// An uncompressed point (SEC 1 section 2.3.3); coordinates have the full length of the field (RFC 7518 section 6.2.1.2).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}
