//! Signatures of `jsonwebtoken`, checked by *ring*, which rustls brings along anyway.
//!
//! `jsonwebtoken` makes a verifier for every token, with a copy of the key. [`Check`] is that verifier, but made once, when
//! the key is loaded: the schedule of an HMAC key is computed once, and nothing is copied for a token.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as verification;
use ring::signature::{RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use ring::{digest, hmac};

/// Makes this the provider of the whole process, so that nothing of `jsonwebtoken` can panic for want of one.
pub fn install() {
    // An error says that it has been done already.
    let _ = PROVIDER.install_default();
}

/// `jsonwebtoken` upon *ring*: it verifies, and signs nothing.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: |algorithm, key| Ok(Box::new(Check::new(*algorithm, key)?)),
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest,
    },
};

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(unsupported())
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &digest::SHA256,
        ThumbprintHash::SHA384 => &digest::SHA384,
        ThumbprintHash::SHA512 => &digest::SHA512,
        _ => return Err(unsupported()),
    };
    Ok(digest::digest(algorithm, data).as_ref().to_vec())
}

/// Checks signatures of one algorithm with one key.
pub struct Check {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Hmac(hmac::Key),
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
    RsaDer(UnparsedPublicKey<Vec<u8>>),
    Curve(UnparsedPublicKey<Vec<u8>>),
}

impl Check {
    /// Prepares a key.
    ///
    /// # Errors
    /// The key is of another family than the algorithm.
    pub fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        let key = match (hmac_algorithm(algorithm), rsa_parameters(algorithm)) {
            (Some(hash), _) => Key::Hmac(hmac::Key::new(hash, key.try_get_as_bytes()?)),
            (_, Some(parameters)) => rsa_key(parameters, key.kind()),
            _ => {
                let algorithm = curve(algorithm).ok_or_else(unsupported)?;
                Key::Curve(UnparsedPublicKey::new(algorithm, key.try_get_as_bytes()?.to_vec()))
            }
        };
        Ok(Check { algorithm, key })
    }
}

fn rsa_key(parameters: &'static RsaParameters, key: &DecodingKeyKind) -> Key {
    match key {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            Key::Rsa(parameters, RsaPublicKeyComponents { n: n.clone(), e: e.clone() })
        }
        DecodingKeyKind::SecretOrDer(der) => Key::RsaDer(UnparsedPublicKey::new(parameters, der.clone())),
    }
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&verification::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&verification::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&verification::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&verification::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&verification::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&verification::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// `FIXED` is the form of JOSE: r and s side by side (RFC 7518 section 3.4).
fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&verification::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&verification::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&verification::ED25519),
        _ => None,
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        match &self.key {
            Key::Hmac(key) => hmac::verify(key, message, signature),
            Key::Rsa(parameters, key) => key.verify(parameters, message, signature),
            Key::RsaDer(key) | Key::Curve(key) => key.verify(message, signature),
        }
        .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
