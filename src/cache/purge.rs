//! Purges: what shall not be given any more, and how answers that are on their way meanwhile come to know of it.

use super::canonical_url;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Purges that answers on their way can still be told of. Older answers are not kept.
const REMEMBERED: usize = 1_024;

/// What a purge is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Everything.
    All,
    /// One key, in all its variants.
    Key(Box<[u8]>),
    /// One address, `https://host/path?query`, under whatever key.
    Url(Box<str>),
    /// All addresses that begin so.
    Prefix(Box<str>),
    /// What has this tag.
    Tag(Box<str>),
}

impl What {
    /// An address, as an operator writes it.
    ///
    /// # Errors
    /// It is none.
    pub fn url(text: &str) -> Result<What, String> {
        address(text)?;
        Ok(What::Url(canonical_url(text.split('#').next().unwrap_or_default()).into()))
    }

    /// The beginning of addresses, as an operator writes it: at least `https://host`.
    ///
    /// # Errors
    /// It is none.
    pub fn prefix(text: &str) -> Result<What, String> {
        Ok(What::Prefix(address(text)?.into()))
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            What::All => "all",
            What::Key(_) => "key",
            What::Url(_) => "url",
            What::Prefix(_) => "prefix",
            What::Tag(_) => "tag",
        }
    }

    /// All words.
    pub const WORDS: [&str; 5] = ["all", "key", "url", "prefix", "tag"];
}

/// In words for people. What it names comes from outside and may hold anything.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::All => f.write_str("everything"),
            What::Key(_) => f.write_str("one key"),
            What::Url(text) => text.escape_debug().fmt(f),
            What::Prefix(text) => write!(f, "{}*", text.escape_debug()),
            What::Tag(text) => write!(f, "tag {}", text.escape_debug()),
        }
    }
}

/// Scheme and host as stored answers have them.
fn address(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no address such as `https://api.example.com/orders`");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(wrong()),
    };
    let host = host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() || host.contains('@') {
        return Err(wrong());
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target = target.split('#').next().unwrap_or_default();
    Ok(format!("{scheme}://{host}{slash}{target}"))
}

/// What becomes of what is purged, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is stale from now on: still given where stale answers may be.
    Expire,
    /// It must be validated before its next use (RFC 9111 section 4.4).
    Invalidate,
    /// It is gone.
    Remove,
}

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it is for.
    pub what: What,
    /// What becomes of that.
    pub how: How,
}

impl Purge {
    /// Whether it is for the answer with this key, address and tags.
    pub fn meets(&self, key: &[u8], url: &str, tags: &[Box<str>]) -> bool {
        match &self.what {
            What::All => true,
            What::Key(purged) => **purged == *key,
            What::Url(purged) => **purged == *url,
            What::Prefix(prefix) => url.starts_with(&**prefix),
            What::Tag(tag) => tags.contains(tag),
        }
    }
}

/// The purges so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Purges(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    made: u64,
    last: VecDeque<Arc<Purge>>,
}

impl Purges {
    /// How many there have been.
    pub fn made(&self) -> u64 {
        self.0.lock().made
    }

    /// Adds one. It must be here before it is applied to what is stored.
    pub fn add(&self, purge: Arc<Purge>) {
        let mut recent = self.0.lock();
        if recent.last.len() >= REMEMBERED {
            recent.last.pop_front();
        }
        recent.last.push_back(purge);
        recent.made += 1;
    }

    /// What those since `made` do to the answer with this key, address and tags.
    pub fn since(&self, made: u64, key: &[u8], url: &str, tags: &[Box<str>]) -> Option<How> {
        let recent = self.0.lock();
        let since = usize::try_from(recent.made.saturating_sub(made)).unwrap_or(usize::MAX);
        if since > recent.last.len() {
            return Some(How::Remove);
        }
        let met = recent.last.iter().rev().take(since).filter(|purge| purge.meets(key, url, tags));
        met.map(|purge| purge.how).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(what: What, how: How) -> Arc<Purge> {
        Arc::new(Purge { what, how })
    }

    #[test]
    fn addresses_are_brought_to_the_form_of_stored_ones() {
        for (written, meant) in [
            ("HTTPS://A.b:443/C?d=1&c", "https://a.b/C?c&d=1"),
            ("http://a.b:8080", "http://a.b:8080/"),
            ("http://a.b:80?x#y", "http://a.b/?x"),
        ] {
            assert_eq!(What::url(written), Ok(What::Url(meant.into())));
        }
        for wrong in ["", "/orders", "a.b/c", "ftp://a.b/", "https://", "https:///c", "https://u@a.b/"] {
            assert!(What::url(wrong).is_err() && What::prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_purge_meets_what_it_says() {
        let meets =
            |what| purge(what, How::Remove).meets(b"key", "https://a.b/c?d=1", &["x".into(), "y".into()]);
        assert!(meets(What::All));
        assert!(meets(What::Key(b"key"[..].into())) && !meets(What::Key(b"ke"[..].into())));
        assert!(meets(What::Url("https://a.b/c?d=1".into())) && !meets(What::Url("https://a.b/c".into())));
        assert!(meets(What::Prefix("https://a.b/".into())) && !meets(What::Prefix("http://a.b/".into())));
        assert!(meets(What::Tag("y".into())) && !meets(What::Tag("z".into())));
    }

    #[test]
    fn what_was_asked_for_before_a_purge_knows_of_it_and_what_came_after_does_not() {
        let purges = Purges::default();
        let since = |made| purges.since(made, b"key", "https://a.b/c", &["x".into()]);
        let began = purges.made();
        assert_eq!(since(began), None);
        purges.add(purge(What::Tag("other".into()), How::Remove));
        assert_eq!(since(began), None);
        purges.add(purge(What::Tag("x".into()), How::Expire));
        assert_eq!(since(began), Some(How::Expire));
        purges.add(purge(What::Url("https://a.b/c".into()), How::Remove));
        purges.add(purge(What::Tag("x".into()), How::Expire));
        assert_eq!(since(began), Some(How::Remove));
        assert_eq!(since(purges.made()), None);
    }

    #[test]
    fn nothing_is_kept_that_more_purges_have_passed_by_than_are_remembered() {
        let purges = Purges::default();
        (0..REMEMBERED).for_each(|_| purges.add(purge(What::Tag("other".into()), How::Remove)));
        assert_eq!(purges.since(0, b"key", "", &[]), None);
        purges.add(purge(What::Tag("other".into()), How::Remove));
        assert_eq!(purges.since(0, b"key", "", &[]), Some(How::Remove));
        assert_eq!(purges.since(1, b"key", "", &[]), None);
    }
}
