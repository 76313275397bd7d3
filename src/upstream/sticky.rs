//! Sticky sessions: a cookie of the gateway's own keeps a client with its target (RFC 6265).
//!
//! Its value is a digest of the target's place: every node and every process gives a target the same one, and it shows no
//! address. With a secret nobody can even find an address by trying all of them.

use super::spec::StickySpec;
use super::target::Place;
use http::HeaderValue;
use ring::digest::{SHA256, digest};
use ring::hmac;
use std::fmt::Write;

/// The cookie that stands for one target.
pub(super) struct Mark {
    /// What the value says.
    pub(super) id: u64,
    /// `Set-Cookie` for clients that came in cleartext, and over TLS.
    fields: [Option<HeaderValue>; 2],
}

impl Mark {
    /// The mark of a target.
    pub(super) fn new(spec: &StickySpec, place: &Place, name: Option<&str>) -> Self {
        let told = format!("{}\0{place}\0{}", spec.upstream, name.unwrap_or_default());
        let id = match &spec.secret {
            Some(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                first_word(hmac::sign(&key, told.as_bytes()).as_ref())
            }
            None => first_word(digest(&SHA256, told.as_bytes()).as_ref()),
        };
        Mark { id, fields: [false, true].map(|tls| HeaderValue::from_str(&field(spec, id, tls)).ok()) }
    }

    /// `Set-Cookie` for a client that came over TLS or not.
    pub(super) fn field(&self, tls: bool) -> Option<&HeaderValue> {
        self.fields.get(usize::from(tls))?.as_ref()
    }
}

fn first_word(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

fn field(spec: &StickySpec, id: u64, tls: bool) -> String {
    let mut field = format!(
        "{}={id:016x}; Path={}; HttpOnly; SameSite={}",
        spec.name,
        spec.path,
        spec.same_site.as_str()
    );
    if let Some(ttl) = spec.ttl {
        // Writing to a string cannot fail.
        let _ = write!(field, "; Max-Age={}", ttl.as_secs());
    }
    if spec.secure.unwrap_or(tls) {
        field.push_str("; Secure");
    }
    field
}

/// The id in a cookie's value, as [`Mark`] writes it.
pub(super) fn read(value: &str) -> Option<u64> {
    if value.len() != 16 || value.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u64::from_str_radix(value, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::spec::SameSite;
    use std::time::Duration;

    fn spec() -> StickySpec {
        StickySpec {
            upstream: "app".into(),
            name: "tg".into(),
            ttl: None,
            path: "/".into(),
            secure: None,
            same_site: SameSite::Lax,
            secret: None,
        }
    }

    fn place(text: &str) -> Place {
        Place::Inet(text.parse().unwrap())
    }

    #[test]
    fn the_cookie_has_its_attributes() {
        let mark = Mark::new(&spec(), &place("10.0.0.1:80"), None);
        let id = format!("{:016x}", mark.id);
        assert_eq!(mark.field(false).unwrap(), &format!("tg={id}; Path=/; HttpOnly; SameSite=Lax"));
        assert_eq!(mark.field(true).unwrap(), &format!("tg={id}; Path=/; HttpOnly; SameSite=Lax; Secure"));
        let full = StickySpec {
            ttl: Some(Duration::from_secs(3600)),
            path: "/shop".into(),
            secure: Some(true),
            same_site: SameSite::None,
            ..spec()
        };
        let mark = Mark::new(&full, &place("10.0.0.1:80"), None);
        assert_eq!(
            mark.field(false).unwrap(),
            &format!("tg={id}; Path=/shop; HttpOnly; SameSite=None; Max-Age=3600; Secure")
        );
    }

    #[test]
    fn values_are_the_same_everywhere_unless_there_is_a_secret() {
        let one = Mark::new(&spec(), &place("10.0.0.1:80"), None).id;
        assert_eq!(one, Mark::new(&spec(), &place("10.0.0.1:80"), None).id);
        assert_ne!(one, Mark::new(&spec(), &place("10.0.0.2:80"), None).id);
        assert_ne!(one, Mark::new(&spec(), &place("10.0.0.1:80"), Some("app.internal")).id);
        let secret = |secret: &[u8]| {
            let spec = StickySpec { secret: Some(secret.into()), ..spec() };
            Mark::new(&spec, &place("10.0.0.1:80"), None).id
        };
        assert_eq!(secret(b"a"), secret(b"a"));
        assert!(secret(b"a") != one && secret(b"a") != secret(b"b"));
    }

    #[test]
    fn only_values_of_our_own_are_read() {
        assert_eq!(read("00000000000000ff"), Some(255));
        for foreign in
            ["", "ff", "00000000000000FF", "+0000000000000ff", "00000000000000fg", "000000000000000ff"]
        {
            assert_eq!(read(foreign), None, "{foreign}");
        }
    }
}
