//! Signed tokens with real signatures, and the keys they are signed with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A key of 2048 bits in PKCS #8, made for tests and nothing else: *ring* makes none.
const RSA: &[u8] = include_bytes!("../../../src/auth/jwt/tests/rsa.pk8");

/// A key that signs tokens, and its name.
pub struct SigningKey {
    pub kid: String,
    signer: Signer,
}

enum Signer {
    Rs256(Box<RsaKeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Hs256(Vec<u8>),
}

impl SigningKey {
    /// RS256, always with the same key.
    pub fn rs256(kid: &str) -> Self {
        SigningKey::new(kid, Signer::Rs256(Box::new(RsaKeyPair::from_pkcs8(RSA).unwrap())))
    }

    /// ES256 with a new key.
    pub fn es256(kid: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        SigningKey::new(kid, Signer::Es256(pair))
    }

    /// EdDSA with a new key of Ed25519.
    pub fn eddsa(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        SigningKey::new(kid, Signer::EdDsa(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()))
    }

    /// HS256 with this secret.
    pub fn hs256(kid: &str, secret: &[u8]) -> Self {
        SigningKey::new(kid, Signer::Hs256(secret.to_vec()))
    }

    fn new(kid: &str, signer: Signer) -> Self {
        SigningKey { kid: kid.to_owned(), signer }
    }

    /// What `alg` says of this key.
    pub fn algorithm(&self) -> &'static str {
        match &self.signer {
            Signer::Rs256(_) => "RS256",
            Signer::Es256(_) => "ES256",
            Signer::EdDsa(_) => "EdDSA",
            Signer::Hs256(_) => "HS256",
        }
    }

    /// The public key as a JWK (RFC 7517); of a secret, the secret.
    pub fn jwk(&self) -> Value {
        let kid = &self.kid;
        match &self.signer {
            Signer::Rs256(pair) => {
                let rsa::PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({ "kty": "RSA", "kid": kid, "n": BASE64.encode(n), "e": BASE64.encode(e) })
            }
            Signer::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": BASE64.encode(x), "y": BASE64.encode(y) })
            }
            Signer::EdDsa(pair) => {
                let x = BASE64.encode(pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x })
            }
            Signer::Hs256(secret) => json!({ "kty": "oct", "kid": kid, "k": BASE64.encode(secret) }),
        }
    }

    /// The public key in bytes: what an attacker would take for a shared secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.signer {
            Signer::Rs256(pair) => pair.public_key().as_ref().to_vec(),
            Signer::Es256(pair) => pair.public_key().as_ref().to_vec(),
            Signer::EdDsa(pair) => pair.public_key().as_ref().to_vec(),
            Signer::Hs256(secret) => secret.clone(),
        }
    }

    /// A token with these claims and the plain header of this key.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// A token with this header and these claims, signed with this key whatever the header says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let made = self.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(made))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Rs256(pair) => {
                let mut made = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut made).unwrap();
                made
            }
            Signer::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Hs256(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
        }
    }
}

/// One object's members over those of another; a null removes.
pub fn with(mut base: Value, over: Value) -> Value {
    let (members, Value::Object(over)) = (base.as_object_mut().unwrap(), over) else { unreachable!() };
    for (name, value) in over {
        members.insert(name, value);
    }
    members.retain(|_, value| !value.is_null());
    base
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `Basic` credentials, encoded as they are.
pub fn basic(pair: impl AsRef<[u8]>) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}
