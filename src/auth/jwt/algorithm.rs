//! Names of algorithms, as tokens and keys write them.

use crate::auth::document::Algorithm;
use jsonwebtoken::Algorithm as Jws;

/// Every algorithm with its name (RFC 7518 section 3.1, RFC 8037) and what `jsonwebtoken` calls it.
const ALL: &[(&str, Algorithm, Jws)] = &[
    ("HS256", Algorithm::HS256, Jws::HS256),
    ("HS384", Algorithm::HS384, Jws::HS384),
    ("HS512", Algorithm::HS512, Jws::HS512),
    ("RS256", Algorithm::RS256, Jws::RS256),
    ("RS384", Algorithm::RS384, Jws::RS384),
    ("RS512", Algorithm::RS512, Jws::RS512),
    ("PS256", Algorithm::PS256, Jws::PS256),
    ("PS384", Algorithm::PS384, Jws::PS384),
    ("PS512", Algorithm::PS512, Jws::PS512),
    ("ES256", Algorithm::ES256, Jws::ES256),
    ("ES384", Algorithm::ES384, Jws::ES384),
    ("EdDSA", Algorithm::EdDSA, Jws::EdDSA),
    // The newer name of the only one of its curves that is taken here (RFC 9864 section 2.2).
    ("Ed25519", Algorithm::EdDSA, Jws::EdDSA),
];

impl Algorithm {
    /// The algorithm of exactly this name; `none` is not one.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, ..)| *known == name).map(|(_, algorithm, _)| *algorithm)
    }

    /// Whether it needs a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(self, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
    }

    /// Length of its hash in bytes, for those that need a shared secret: the secret must not be shorter.
    pub fn shortest_secret(self) -> Option<usize> {
        match self {
            Algorithm::HS256 => Some(32),
            Algorithm::HS384 => Some(48),
            Algorithm::HS512 => Some(64),
            _ => None,
        }
    }

    pub(super) fn jws(self) -> Option<Jws> {
        ALL.iter().find(|(_, algorithm, _)| *algorithm == self).map(|(.., jws)| *jws)
    }
}
