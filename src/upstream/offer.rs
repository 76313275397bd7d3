//! A change of protocol that a target may make (RFC 9110 section 7.8).

use crate::exchange::{ResponseHead, has_token};
use http::header::UPGRADE;
use http::{HeaderName, HeaderValue, Version};

/// A protocol that may be changed to.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name in `Upgrade`.
    pub protocol: &'static str,
    /// The field by which a target shows that it has understood this very request.
    pub proof: (HeaderName, HeaderValue),
}

impl Offer {
    /// Whether the head of a 101 takes it: the protocol is named, and the proof stands there once.
    pub fn is_taken(&self, head: &ResponseHead) -> bool {
        let (name, value) = &self.proof;
        let mut said = head.headers.get_all(name).iter();
        head.version == Version::HTTP_11
            && has_token(&head.headers, &UPGRADE, self.protocol)
            && (said.next(), said.next()) == (Some(value), None)
    }
}
