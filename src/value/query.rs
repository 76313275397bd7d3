//! Query strings: names and values as forms write them (WHATWG URL, `application/x-www-form-urlencoded`).
//!
//! Whoever compares names of parameters does it here: two readings of `t%6Fken` in one request would be a hole.

use std::borrow::Cow;

/// Whether a raw name, escapes and all, is this one.
pub fn is_named(raw: &str, name: &str) -> bool {
    raw == name || (is_encoded(raw) && decoded(raw).eq(name.bytes()))
}

/// The pairs of a query.
pub fn pairs(query: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let (pair, behind) = split_at_byte(rest?, b'&');
        rest = behind;
        Some(pair)
    })
}

/// The raw name and value of one pair; a name alone has no value.
pub fn split_pair(pair: &str) -> (&str, Option<&str>) {
    split_at_byte(pair, b'=')
}

/// What stands before an ASCII character, and behind it if it is there. A loop: what is looked through is a few bytes long, and
/// to prepare for a longer search costs more than that.
fn split_at_byte(text: &str, byte: u8) -> (&str, Option<&str>) {
    let at = text.bytes().position(|other| other == byte);
    let parts = at.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)));
    parts.map_or((text, None), |(before, behind)| (before, Some(behind)))
}

fn is_encoded(raw: &str) -> bool {
    raw.bytes().any(|byte| matches!(byte, b'%' | b'+'))
}

/// Decodes as forms do (WHATWG URL, `application/x-www-form-urlencoded`): `+` is a space, a stray `%` stays.
pub fn decoded(raw: &str) -> impl Iterator<Item = u8> {
    let mut rest = raw.as_bytes().iter().copied();
    std::iter::from_fn(move || {
        let byte = rest.next()?;
        if byte == b'+' {
            return Some(b' ');
        }
        let mut ahead = rest.clone();
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(ahead.next()), hex(ahead.next()))
        {
            rest = ahead;
            return Some(high << 4 | low);
        }
        Some(byte)
    })
}

/// The same as text.
pub fn decoded_text(raw: &str) -> Cow<'_, str> {
    if !is_encoded(raw) {
        return Cow::Borrowed(raw);
    }
    let bytes: Vec<u8> = decoded(raw).collect();
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// Appends a value, escaped so that it is one.
pub fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn hex(byte: Option<u8>) -> Option<u8> {
    char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_into_pairs() {
        for query in ["", "a", "a=1", "a=1&b", "&", "a&&b=c=d&é=ü&", "=&=x"] {
            assert!(pairs(query).eq(query.split('&')), "{query}");
            for pair in pairs(query) {
                let expected = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
                assert_eq!(split_pair(pair), expected, "{pair}");
            }
        }
    }

    #[test]
    fn names_are_compared_decoded() {
        for (raw, name, same) in [
            ("token", "token", true),
            ("t%6Fken", "token", true),
            ("%74oken", "token", true),
            ("a+b", "a b", true),
            ("tok", "token", false),
            ("100%", "100%", true),
            ("Token", "token", false),
        ] {
            assert_eq!(is_named(raw, name), same, "{raw}");
        }
    }
}
