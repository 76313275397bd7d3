//! The path of a request, brought into one form before anybody looks at it.
//!
//! What is matched is what is forwarded: two spellings of one path must not reach two routes, and no spelling may mean
//! one thing to a step here and another to the upstream. The form is that of RFC 3986 section 6.2.2, with `//` collapsed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// How a listener treats the path of a request before it is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Refuses paths that mean different things to different servers: encoded slashes and backslashes, control
    /// characters, invalid escapes and UTF-8, bytes RFC 3986 does not allow, `..` above the root.
    #[default]
    Strict,
    /// Keeps encoded slashes and backslashes, encodes what is not allowed, stops `..` at the root. Control characters
    /// and invalid escapes are still refused.
    Lenient,
    /// Takes the path as it comes. Only for upstreams that need the exact bytes; steps that match paths can be evaded.
    Off,
}

/// Why a path is refused. The reason goes into answers and logs and is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathError {
    /// The path does not begin with `/`.
    NotAbsolute,
    /// A control character, raw or encoded: NUL to US, or DEL.
    Control,
    /// `%2F`.
    EncodedSlash,
    /// `%5C`.
    EncodedBackslash,
    /// `\`, which some servers read as `/`.
    Backslash,
    /// `%` without two hexadecimal digits.
    InvalidEscape,
    /// A byte that RFC 3986 section 3.3 does not allow in a path.
    IllegalCharacter,
    /// Escapes that decode to overlong or otherwise invalid UTF-8.
    InvalidUtf8,
    /// More `..` than segments before it.
    AboveRoot,
    /// `.;x` or `..;x`, which servlet containers read as `.` and `..`.
    DotParameters,
}

impl PathError {
    /// The reason in a few words, such as "encoded slash".
    pub fn reason(self) -> &'static str {
        match self {
            PathError::NotAbsolute => "path does not begin with a slash",
            PathError::Control => "control character",
            PathError::EncodedSlash => "encoded slash",
            PathError::EncodedBackslash => "encoded backslash",
            PathError::Backslash => "backslash",
            PathError::InvalidEscape => "invalid escape",
            PathError::IllegalCharacter => "illegal character",
            PathError::InvalidUtf8 => "invalid UTF-8",
            PathError::AboveRoot => "path goes above the root",
            PathError::DotParameters => "dot segment with parameters",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PathError {}

/// Brings the path part of a request target (without query) into normal form.
///
/// Escapes of unreserved characters are decoded, other escapes get upper-case digits, `//` is collapsed, then dot
/// segments are resolved (RFC 3986 sections 5.2.4 and 6.2.2). Nothing is decoded twice, so doing it again changes
/// nothing. A path that is already normal is borrowed.
///
/// # Errors
/// What `mode` refuses, see [`Normalize`].
pub fn normalize(raw: &str, mode: Normalize) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if mode == Normalize::Off || is_plain(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    let above = if mode == Normalize::Lenient { Above::Stop } else { Above::Refuse };
    let normal = resolve(raw, above, |segment, out| write_segment(segment, mode, out))?;
    Ok(if normal == raw { Cow::Borrowed(raw) } else { Cow::Owned(normal) })
}

/// What to do with a `..` at the root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Above {
    Refuse,
    Stop,
}

/// Collapses `//` and resolves dot segments of what `write` makes of each segment.
pub(super) fn resolve(
    raw: &str,
    above: Above,
    mut write: impl FnMut(&str, &mut String) -> Result<(), PathError>,
) -> Result<String, PathError> {
    let rest = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    // Between two segments `out` never ends in a slash; `directory` remembers whether the path does.
    let mut out = String::with_capacity(raw.len());
    let mut directory = true;
    for segment in rest.split('/') {
        let start = out.len();
        out.push('/');
        write(segment, &mut out)?;
        let written = out.get(start + 1..).unwrap_or_default();
        let parent = written == "..";
        directory = parent || written == "." || written.is_empty();
        if directory {
            out.truncate(start);
        }
        if parent {
            match out.rfind('/') {
                Some(slash) => out.truncate(slash),
                None if above == Above::Refuse => return Err(PathError::AboveRoot),
                None => {}
            }
        }
    }
    if directory {
        out.push('/');
    }
    Ok(out)
}

/// Writes one segment in normal form.
pub(super) fn write_segment(segment: &str, mode: Normalize, out: &mut String) -> Result<(), PathError> {
    let lenient = mode == Normalize::Lenient;
    let start = out.len();
    let mut beyond_ascii = false;
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let decoded = escape(bytes.next(), bytes.next()).ok_or(PathError::InvalidEscape)?;
                beyond_ascii |= !decoded.is_ascii();
                write_escaped(decoded, lenient, out)?;
            }
            _ if is_legal(byte) => out.push(char::from(byte)),
            _ if byte.is_ascii_control() => return Err(PathError::Control),
            _ if lenient => push_escape(byte, out),
            b'\\' => return Err(PathError::Backslash),
            _ => return Err(PathError::IllegalCharacter),
        }
    }
    let written = out.get(start..).unwrap_or_default();
    if lenient {
        Ok(())
    } else if beyond_ascii && !decodes_to_utf8(written) {
        Err(PathError::InvalidUtf8)
    } else if written.starts_with(".;") || written.starts_with("..;") {
        Err(PathError::DotParameters)
    } else {
        Ok(())
    }
}

fn write_escaped(decoded: u8, lenient: bool, out: &mut String) -> Result<(), PathError> {
    match decoded {
        _ if decoded.is_ascii_control() => return Err(PathError::Control),
        b'/' if !lenient => return Err(PathError::EncodedSlash),
        b'\\' if !lenient => return Err(PathError::EncodedBackslash),
        _ if is_unreserved(decoded) => out.push(char::from(decoded)),
        _ => push_escape(decoded, out),
    }
    Ok(())
}

/// Whether nothing has to be looked at closely: no escape, no illegal byte, no `//`, no segment beginning with a dot.
fn is_plain(raw: &str) -> bool {
    let mut before = LEGAL;
    for byte in raw.bytes() {
        let class = CLASS.get(usize::from(byte)).copied().unwrap_or(ODD);
        if class == ODD || before == SLASH && class != LEGAL {
            return false;
        }
        before = class;
    }
    true
}

/// What a byte means to [`is_plain`]: a slash, a dot, what else may stand there, and what may not. One look-up instead of a
/// dozen comparisons.
static CLASS: [u8; 256] = classes();
const ODD: u8 = 0;
const LEGAL: u8 = 1;
const DOT: u8 = 2;
const SLASH: u8 = 3;

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a wrong index is an error")]
const fn classes() -> [u8; 256] {
    let mut table = [ODD; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = match byte as u8 {
            b'/' => SLASH,
            b'.' => DOT,
            other if is_legal(other) => LEGAL,
            _ => ODD,
        };
        byte += 1;
    }
    table
}

/// Whether a segment of escapes and ASCII spells valid UTF-8.
fn decodes_to_utf8(written: &str) -> bool {
    let mut decoded = Vec::with_capacity(written.len());
    let mut bytes = written.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { escape(bytes.next(), bytes.next()).unwrap_or(byte) } else { byte });
    }
    std::str::from_utf8(&decoded).is_ok()
}

fn escape(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn push_escape(byte: u8, out: &mut String) {
    let digit = |nibble: u32| char::from_digit(nibble, 16).unwrap_or('0').to_ascii_uppercase();
    out.push('%');
    out.push(digit(u32::from(byte >> 4)));
    out.push(digit(u32::from(byte & 15)));
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 section 3.3 without escapes.
const fn is_legal(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strict(raw: &str) -> Result<String, PathError> {
        normalize(raw, Normalize::Strict).map(Cow::into_owned)
    }

    fn lenient(raw: &str) -> Result<String, PathError> {
        normalize(raw, Normalize::Lenient).map(Cow::into_owned)
    }

    #[test]
    fn strict_and_lenient_agree_on_harmless_paths() {
        for (raw, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b//", "/a/b/"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a//../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b", "/a/..b"),
            ("/%61%2D%7e", "/a-~"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%3fb%23", "/a%3Fb%23"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/%252F", "/%252F"),
            ("/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+"),
        ] {
            assert_eq!(strict(raw).as_deref(), Ok(normal), "strict {raw}");
            assert_eq!(lenient(raw).as_deref(), Ok(normal), "lenient {raw}");
        }
    }

    #[test]
    fn strict_refuses_and_lenient_mends() {
        use PathError::*;
        for (raw, error, mended) in [
            ("/..", AboveRoot, "/"),
            ("/../../etc/passwd", AboveRoot, "/etc/passwd"),
            ("/a/../../b", AboveRoot, "/b"),
            ("/a%2fb", EncodedSlash, "/a%2Fb"),
            ("/..%2fb", EncodedSlash, "/..%2Fb"),
            ("/a%5cb", EncodedBackslash, "/a%5Cb"),
            ("/a\\..\\b", Backslash, "/a%5C..%5Cb"),
            ("/a b", IllegalCharacter, "/a%20b"),
            ("/\"<>^`{|}[]", IllegalCharacter, "/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
            ("/é", IllegalCharacter, "/%C3%A9"),
            ("/%C0%AF", InvalidUtf8, "/%C0%AF"),
            ("/%c3x", InvalidUtf8, "/%C3x"),
            ("/%ED%A0%80", InvalidUtf8, "/%ED%A0%80"),
            ("/%ff", InvalidUtf8, "/%FF"),
            ("/a/..;/admin", DotParameters, "/a/..;/admin"),
            ("/a/%2e;x=1/admin", DotParameters, "/a/.;x=1/admin"),
        ] {
            assert_eq!(strict(raw), Err(error), "strict {raw}");
            assert_eq!(lenient(raw).as_deref(), Ok(mended), "lenient {raw}");
        }
    }

    #[test]
    fn both_refuse_what_has_no_meaning() {
        for (raw, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/a\0b", PathError::Control),
            ("/a\nb", PathError::Control),
            ("/a\x7f", PathError::Control),
            ("/%00", PathError::Control),
            ("/%0d%0a", PathError::Control),
            ("/%7F", PathError::Control),
            ("/%", PathError::InvalidEscape),
            ("/%4", PathError::InvalidEscape),
            ("/%zz", PathError::InvalidEscape),
            ("/%4/1", PathError::InvalidEscape),
            ("/%+1", PathError::InvalidEscape),
            ("/%u002e", PathError::InvalidEscape),
        ] {
            assert_eq!(strict(raw), Err(error), "strict {raw:?}");
            assert_eq!(lenient(raw), Err(error), "lenient {raw:?}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for raw in ["/", "/a/b.json", "/a/", "/.well-known/acme", "/%C3%A9", "/a%20b"] {
            assert!(matches!(normalize(raw, Normalize::Strict), Ok(Cow::Borrowed(_))), "{raw}");
        }
    }

    #[test]
    fn off_takes_everything_with_a_slash() {
        assert_eq!(normalize("//a/../%2f%zz", Normalize::Off).as_deref(), Ok("//a/../%2f%zz"));
        assert_eq!(normalize("x", Normalize::Off), Err(PathError::NotAbsolute));
    }

    fn decoded_controls(path: &str) -> bool {
        path.contains("%0")
            || path.contains("%1")
            || path.contains("%7F")
            || path.chars().any(char::is_control)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn normal_form_is_stable_and_safe(
            raw in prop_oneof![
                "/?([a-b./%25\\\\;]|%2[eEfF5]|%5c|\\.\\./|//|%c3%a9|%[0-9a-f]{2}|.){0,24}",
                "\\PC{0,40}",
            ],
        ) {
            for mode in [Normalize::Strict, Normalize::Lenient] {
                let Ok(normal) = normalize(&raw, mode) else { continue };
                prop_assert_eq!(normalize(&normal, mode), Ok(Cow::Borrowed(&*normal)));
                prop_assert!(normal.starts_with('/') && !normal.contains("//"));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!decoded_controls(&normal) && normal.is_ascii() && !normal.contains('\\'));
                if mode == Normalize::Strict {
                    prop_assert!(!normal.contains("%2F") && !normal.contains("%5C"));
                }
            }
        }

        #[test]
        fn strict_is_at_least_as_strict_as_lenient(raw in "/([a-b.%]|%[0-9a-f]{2}|/){0,12}") {
            if let Ok(normal) = normalize(&raw, Normalize::Strict) {
                prop_assert_eq!(normalize(&raw, Normalize::Lenient), Ok(normal));
            }
        }
    }
}
