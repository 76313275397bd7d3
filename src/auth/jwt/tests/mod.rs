//! Tokens and keys of the tests: made here, with real signatures.

mod attacks;
mod keys;
mod provider;
mod times;

use super::keys::KeySet;
use super::verify::{Refused, Spec, Verified, Verifier, Why};
use crate::auth::document::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rsa};
use serde_json::{Value, json};

/// The time of the tests.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example";
/// A key of 2048 bits in PKCS #8, made for these tests and nothing else: *ring* makes none.
const RSA: &[u8] = include_bytes!("rsa.pk8");

enum Signer {
    Rsa(Box<RsaKeyPair>),
    Curve(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

fn rsa_key() -> Signer {
    Signer::Rsa(Box::new(RsaKeyPair::from_pkcs8(RSA).unwrap()))
}

fn p256() -> Signer {
    curve(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)
}

fn p384() -> Signer {
    curve(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)
}

fn curve(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Signer {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    Signer::Curve(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
}

fn ed25519() -> Signer {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Signer::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
}

impl Signer {
    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut made = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut made).unwrap();
                made
            }
            Signer::Curve(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Signer::Rsa(pair) => pair.public_key().as_ref(),
            Signer::Curve(pair) => pair.public_key().as_ref(),
            Signer::Ed25519(pair) => pair.public_key().as_ref(),
            Signer::Secret(secret) => secret,
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let coordinates = |curve: &str| {
            let (x, y) = self.public()[1..].split_at((self.public().len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "kid": kid, "x": BASE64.encode(x), "y": BASE64.encode(y)})
        };
        match self {
            Signer::Rsa(pair) => {
                let rsa::PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "kid": kid, "n": BASE64.encode(n), "e": BASE64.encode(e)})
            }
            Signer::Curve(_) if self.public().len() == 65 => coordinates("P-256"),
            Signer::Curve(_) => coordinates("P-384"),
            Signer::Ed25519(_) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": BASE64.encode(self.public())})
            }
            Signer::Secret(secret) => json!({"kty": "oct", "kid": kid, "k": BASE64.encode(secret)}),
        }
    }

    /// A token whose header and payload are these very bytes.
    fn raw(&self, header: &str, payload: &str) -> String {
        let algorithm: Value = serde_json::from_str(header).unwrap_or_default();
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let made = self.sign(algorithm["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(made))
    }

    /// A token with the claims of every good token, and these.
    fn token(&self, header: Value, claims: Value) -> String {
        self.raw(&header.to_string(), &with(good_claims(), claims).to_string())
    }
}

fn good_claims() -> Value {
    json!({"iss": ISSUER, "aud": "api", "sub": "ann", "exp": NOW + 60})
}

/// One object's members over those of another; a null removes.
fn with(mut base: Value, over: Value) -> Value {
    let (members, Value::Object(over)) = (base.as_object_mut().unwrap(), over) else { unreachable!() };
    for (name, value) in over {
        members.insert(name, value);
    }
    members.retain(|_, value| !value.is_null());
    base
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn spec(algorithms: &[Algorithm]) -> Spec {
    Spec {
        issuer: ISSUER.to_owned(),
        audience: Some(vec!["api".to_owned(), "other".to_owned()]),
        algorithms: algorithms.to_vec(),
        typ: Some(vec!["JWT".to_owned(), "at+jwt".to_owned()]),
        skew: 30,
        max_size: 8192,
    }
}

fn verify(token: &str, keys: &KeySet, algorithms: &[Algorithm]) -> Result<Verified, Refused> {
    Verifier::new(spec(algorithms)).verify(token, keys, NOW)
}

#[track_caller]
fn assert_refused(token: &str, keys: &KeySet, algorithms: &[Algorithm], why: Why) {
    match verify(token, keys, algorithms) {
        Err(refused) => assert_eq!(refused, Refused::Because(why), "{token}"),
        Ok(verified) => panic!("accepted: {token}: {verified:?}"),
    }
}

#[test]
fn every_algorithm_works() {
    let names = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(|name| (name, rsa_key()));
    let secret = || Signer::Secret(vec![7; 64]);
    let others = [
        ("ES256", p256()),
        ("ES384", p384()),
        ("EdDSA", ed25519()),
        ("Ed25519", ed25519()),
        ("HS256", secret()),
        ("HS384", secret()),
        ("HS512", secret()),
    ];
    for (name, signer) in names.into_iter().chain(others) {
        let keys = match &signer {
            Signer::Secret(secret) => KeySet::from_secret(secret).unwrap(),
            public => set(&[public.jwk("k")]),
        };
        let algorithm = Algorithm::from_name(name).unwrap();
        let token = signer.token(json!({"alg": name, "kid": "k", "typ": "at+jwt"}), json!({}));
        let verified = verify(&token, &keys, &[algorithm]).unwrap();
        assert_eq!((verified.expires, verified.good_until), (NOW + 60, NOW + 90), "{name}");
        assert_eq!(verified.claims.get("sub"), Some(&json!("ann")));
        let token = signer.token(json!({"alg": name}), json!({}));
        assert!(verify(&token, &keys, &[algorithm]).is_ok(), "{name} without kid");
    }
}
