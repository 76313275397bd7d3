//! What `Cache-Control` says (RFC 9111 section 5.2), read without allocating and in doubt to the side of care.
//!
//! The engine's `CacheControl` is not used: of a directive that stands twice it takes the last, where the more careful one
//! should hold; one without a number counts as absent, where it makes an answer stale; and it costs a map and a regular
//! expression for each message. What both understand, a test compares.

use http::header::{CACHE_CONTROL, GetAll, PRAGMA};
use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, ListEntry, Parser};

/// The most seconds a number may say (section 1.2.2).
pub const MOST_SECONDS: u64 = 1 << 31;

/// Directives of an answer. Times are seconds; one that is not a number is zero: such an answer is stale (section 4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// `no-store` (section 5.2.2.5).
    pub no_store: bool,
    /// `no-cache` for the whole answer (section 5.2.2.4).
    pub no_cache: bool,
    /// `private` for the whole answer (section 5.2.2.7).
    pub private: bool,
    /// `public` (section 5.2.2.9).
    pub public: bool,
    /// `must-revalidate` (section 5.2.2.2).
    pub must_revalidate: bool,
    /// `proxy-revalidate` (section 5.2.2.8).
    pub proxy_revalidate: bool,
    /// `must-understand` (section 5.2.2.3).
    pub must_understand: bool,
    /// Whether `no-cache` or `private` names fields: see [`named_fields`].
    pub names_fields: bool,
    /// `max-age` (section 5.2.2.1).
    pub max_age: Option<u64>,
    /// `s-maxage` (section 5.2.2.10).
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

/// Directives of a request (section 5.2.1). Times are seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Nothing of this may be stored.
    pub no_store: bool,
    /// Nothing stored may be given without validation.
    pub no_cache: bool,
    /// Nobody may be asked: what is stored, or 504.
    pub only_if_cached: bool,
    /// The oldest answer that is taken.
    pub max_age: Option<u64>,
    /// How long an answer must still be fresh.
    pub min_fresh: Option<u64>,
    /// How long an answer may be stale; without a number, any time.
    pub max_stale: Option<u64>,
    /// How long an answer may be stale when nothing better is to be had (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

impl Control {
    /// Reads all `Cache-Control` fields of an answer.
    pub fn of(headers: &HeaderMap) -> Control {
        let mut control = Control::default();
        for directive in all(headers.get_all(CACHE_CONTROL)) {
            control.take(&directive);
        }
        control
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let seconds = || directive.seconds().or(Some(0));
        match Name::of(directive.name) {
            Some(Name::NoStore) => self.no_store = true,
            Some(Name::NoCache) if directive.names_fields() => self.names_fields = true,
            Some(Name::NoCache) => self.no_cache = true,
            Some(Name::Private) if directive.names_fields() => self.names_fields = true,
            Some(Name::Private) => self.private = true,
            Some(Name::Public) => self.public = true,
            Some(Name::MustRevalidate) => self.must_revalidate = true,
            Some(Name::ProxyRevalidate) => self.proxy_revalidate = true,
            Some(Name::MustUnderstand) => self.must_understand = true,
            Some(Name::MaxAge) => self.max_age = least(self.max_age, seconds()),
            Some(Name::SMaxage) => self.s_maxage = least(self.s_maxage, seconds()),
            Some(Name::StaleWhileRevalidate) => {
                self.stale_while_revalidate = least(self.stale_while_revalidate, seconds())
            }
            Some(Name::StaleIfError) => self.stale_if_error = least(self.stale_if_error, seconds()),
            Some(Name::OnlyIfCached | Name::MinFresh | Name::MaxStale) | None => {}
        }
    }

    /// Reads a field that is meant for caches like this one and goes before `Cache-Control` (RFC 9213 section 2.1): a
    /// dictionary of structured fields. `None` when there is none, or when it cannot be read and so counts as absent.
    pub fn targeted(values: GetAll<'_, HeaderValue>) -> Option<Control> {
        let lines: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
        let dictionary = Parser::parse_dictionary(&lines.join(&b", "[..])).ok()?;
        let mut control = Control::default();
        for (name, entry) in &dictionary {
            let item = match entry {
                ListEntry::Item(item) => Some(&item.bare_item),
                ListEntry::InnerList(_) => None,
            };
            let number;
            let (value, quoted) = match item {
                Some(BareItem::Boolean(true)) => (None, false),
                Some(BareItem::Boolean(false)) => continue,
                Some(BareItem::Integer(seconds)) => {
                    number = seconds.to_string();
                    (Some(number.as_bytes()), false)
                }
                Some(BareItem::String(text) | BareItem::Token(text)) => (Some(text.as_bytes()), true),
                Some(BareItem::Decimal(_) | BareItem::ByteSeq(_)) | None => (Some(&b"?"[..]), true),
            };
            let directive = Directive { name: name.as_bytes(), value, quoted };
            // A value of the wrong type makes the field one that cannot be relied upon.
            if directive.is_numeric() && (quoted || value.is_none()) {
                return None;
            }
            control.take(&directive);
        }
        (!dictionary.is_empty()).then_some(control)
    }
}

impl Directives {
    /// Reads all `Cache-Control` fields of a request; `Pragma: no-cache` where there is none (section 5.4).
    pub fn of(headers: &HeaderMap) -> Directives {
        let mut directives = Directives::default();
        if !headers.contains_key(CACHE_CONTROL) {
            directives.no_cache = headers.contains_key(PRAGMA)
                && all(headers.get_all(PRAGMA)).any(|word| word.name.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for directive in all(headers.get_all(CACHE_CONTROL)) {
            directives.take(&directive);
        }
        directives
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let seconds = || directive.seconds();
        match Name::of(directive.name) {
            Some(Name::NoStore) => self.no_store = true,
            Some(Name::NoCache) => self.no_cache = true,
            Some(Name::OnlyIfCached) => self.only_if_cached = true,
            Some(Name::MaxAge) => self.max_age = least(self.max_age, seconds().or(Some(0))),
            Some(Name::MinFresh) => self.min_fresh = self.min_fresh.max(seconds()),
            Some(Name::MaxStale) => {
                let most = if directive.value.is_none() { Some(MOST_SECONDS) } else { seconds() };
                self.max_stale = least(self.max_stale, most);
            }
            Some(Name::StaleIfError) => self.stale_if_error = least(self.stale_if_error, seconds()),
            _ => {}
        }
    }
}

/// The fields that `no-cache="…"` and `private="…"` name: they must not be given from a cache (sections 5.2.2.4, 5.2.2.7).
pub fn named_fields(headers: &HeaderMap) -> impl Iterator<Item = http::HeaderName> {
    let listing = all(headers.get_all(CACHE_CONTROL)).filter(|directive| {
        matches!(Name::of(directive.name), Some(Name::NoCache | Name::Private)) && directive.names_fields()
    });
    let names = listing.flat_map(|directive| directive.value.unwrap_or_default().split(|byte| *byte == b','));
    names.filter_map(|name| http::HeaderName::from_bytes(name.trim_ascii()).ok())
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// The directives that mean something here.
#[derive(Clone, Copy)]
enum Name {
    NoStore,
    NoCache,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    OnlyIfCached,
    MaxAge,
    SMaxage,
    MinFresh,
    MaxStale,
    StaleWhileRevalidate,
    StaleIfError,
}

const NAMES: [(&[u8], Name); 14] = [
    (b"max-age", Name::MaxAge),
    (b"no-cache", Name::NoCache),
    (b"no-store", Name::NoStore),
    (b"private", Name::Private),
    (b"public", Name::Public),
    (b"s-maxage", Name::SMaxage),
    (b"must-revalidate", Name::MustRevalidate),
    (b"proxy-revalidate", Name::ProxyRevalidate),
    (b"must-understand", Name::MustUnderstand),
    (b"stale-while-revalidate", Name::StaleWhileRevalidate),
    (b"stale-if-error", Name::StaleIfError),
    (b"only-if-cached", Name::OnlyIfCached),
    (b"min-fresh", Name::MinFresh),
    (b"max-stale", Name::MaxStale),
];

impl Name {
    fn of(text: &[u8]) -> Option<Name> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)).map(|(_, name)| *name)
    }
}

/// One directive as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directive<'a> {
    name: &'a [u8],
    /// What stands behind `=`, without its quotes; what is escaped in it stays so.
    value: Option<&'a [u8]>,
    /// Whether it stands in quotes.
    quoted: bool,
}

impl Directive<'_> {
    /// `delta-seconds` (section 1.2.2), in quotes or not.
    fn seconds(&self) -> Option<u64> {
        let digits = self.value?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS);
        Some(digits.iter().fold(0, add))
    }

    /// Whether it is only about some fields. A list of none is about the whole answer, to be careful.
    fn names_fields(&self) -> bool {
        self.value.is_some_and(|names| names.iter().any(|byte| !matches!(byte, b',' | b' ' | b'\t')))
    }

    fn is_numeric(&self) -> bool {
        let name = Name::of(self.name);
        matches!(name, Some(Name::MaxAge | Name::SMaxage | Name::StaleWhileRevalidate | Name::StaleIfError))
    }
}

fn all<'a>(lines: GetAll<'a, HeaderValue>) -> impl Iterator<Item = Directive<'a>> {
    lines.into_iter().flat_map(|line| Line { rest: line.as_bytes() })
}

/// The directives of one line: `token [ "=" ( token / quoted-string ) ]`, with commas between.
struct Line<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Line<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        loop {
            self.rest = skip(self.rest, |byte| matches!(byte, b',' | b' ' | b'\t'));
            if self.rest.is_empty() {
                return None;
            }
            let name_end = find(self.rest, |byte| matches!(byte, b',' | b'='));
            let (name, rest) = self.rest.split_at_checked(name_end)?;
            let Some(value) = rest.strip_prefix(b"=") else {
                self.rest = rest;
                return Some(Directive { name: name.trim_ascii_end(), value: None, quoted: false });
            };
            let (value, quoted, rest) = value_of(value);
            self.rest = rest;
            // There is no space before `=`: one that has it says something else, which must not pass for nothing.
            let value = if name.ends_with(b" ") || name.ends_with(b"\t") { b"?" } else { value };
            let name = name.trim_ascii_end();
            if !name.is_empty() {
                return Some(Directive { name, value: Some(value), quoted });
            }
        }
    }
}

/// A value, whether it was in quotes, and what follows it. Quotes that are not closed are none: they must not hide what comes
/// behind them.
fn value_of(text: &[u8]) -> (&[u8], bool, &[u8]) {
    if let Some(inside) = text.strip_prefix(b"\"")
        && let Some(end) = closing_quote(inside)
    {
        let (value, rest) = inside.split_at_checked(end).unwrap_or((inside, b""));
        let rest = rest.get(1..).unwrap_or_default();
        let after = find(rest, |byte| byte == b',');
        return (value, true, rest.get(after..).unwrap_or_default());
    }
    let (value, rest) = text.split_at_checked(find(text, |byte| byte == b',')).unwrap_or((text, b""));
    (value.trim_ascii_end(), false, rest)
}

fn closing_quote(inside: &[u8]) -> Option<usize> {
    let mut escaped = false;
    inside.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

fn find(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| is(*byte)).unwrap_or(text.len())
}

fn skip(text: &[u8], is: impl Fn(u8) -> bool) -> &[u8] {
    text.get(find(text, |byte| !is(byte))..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora_cache::cache_control::CacheControl;
    use proptest::prelude::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    fn control(line: &str) -> Control {
        Control::of(&headers("cache-control", &[line]))
    }

    fn directives(line: &str) -> Directives {
        Directives::of(&headers("cache-control", &[line]))
    }

    /// RFC 9111 section 1.2.2 and 4.2.1: delta-seconds are digits; too many are the most; anything else makes it stale.
    #[test]
    fn seconds_are_read_with_care() {
        for (line, seconds) in [
            ("max-age=3600", Some(3600)),
            ("MaX-AgE=3600", Some(3600)),
            ("max-age=\"3600\"", Some(3600)),
            ("max-age=003600", Some(3600)),
            ("max-age=2147483647", Some(2147483647)),
            ("max-age=99999999999999999999999999", Some(MOST_SECONDS)),
            ("max-age=3600.0", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age='3600'", Some(0)),
            ("max-age=a100", Some(0)),
            ("max-age=100a", Some(0)),
            ("max-age =3600", Some(0)),
            ("max-age= 3600", Some(0)),
            ("max-age=", Some(0)),
            ("max-age", Some(0)),
            ("foo, max-age=60 , bar=\"x\"", Some(60)),
            ("max-age=1800, max-age=1", Some(1)),
            ("max-age=1, max-age=1800", Some(1)),
            ("extension=\"max-age=3600\"", None),
            ("extension=\"max-age=3600\", max-age=1", Some(1)),
            ("max-age=\"1\", extension=\"a\\\", max-age=3600\"", Some(1)),
            ("x-max-age=3600", None),
        ] {
            assert_eq!(control(line).max_age, seconds, "{line}");
        }
    }

    /// Section 4.2.1: conflicting directives, here on two lines: the most restrictive holds.
    #[test]
    fn several_lines_are_one_list() {
        let control =
            Control::of(&headers("cache-control", &["max-age=1800, public", "max-age=60", "no-store"]));
        assert_eq!((control.max_age, control.public, control.no_store), (Some(60), true, true));
    }

    #[test]
    fn nothing_hides_a_directive() {
        for line in [
            "no-store=x",
            "nO-StOrE",
            ",,no-store,,",
            "a=\"b, no-store",
            "a\"b, no-store, c\"",
            "a=\"b\"x, no-store",
            "=, no-store",
            "=x, no-store",
            "a=b c, no-store",
            "no-store ",
            "\tno-store",
        ] {
            assert!(control(line).no_store, "{line}");
        }
        assert!(!control("a=\"b, no-store\"").no_store);
    }

    /// Sections 5.2.2.4 and 5.2.2.7: with an argument, only the named fields are concerned.
    #[test]
    fn fields_are_named() {
        let names = |line: &str| -> Vec<String> {
            named_fields(&headers("cache-control", &[line])).map(|name| name.to_string()).collect()
        };
        assert_eq!(names("no-cache=\"Set-Cookie, x-a\", private=x-b"), ["set-cookie", "x-a", "x-b"]);
        let control = control("no-cache=\"a\"");
        assert_eq!((control.no_cache, control.names_fields), (false, true));
        for line in ["no-cache", "no-cache=\"\"", "no-cache=\" , \""] {
            assert!(self::control(line).no_cache, "{line}");
        }
        assert!(self::control("private=\"\"").private);
    }

    #[test]
    fn requests_say_what_they_take() {
        let all = directives("max-age=5, min-fresh=7, max-stale=9, no-cache, no-store, only-if-cached");
        assert_eq!((all.max_age, all.min_fresh, all.max_stale), (Some(5), Some(7), Some(9)));
        assert!(all.no_cache && all.no_store && all.only_if_cached);
        assert_eq!(directives("max-stale").max_stale, Some(MOST_SECONDS));
        assert_eq!(directives("max-stale=x").max_stale, None);
        assert_eq!(directives("max-age=x").max_age, Some(0));
        assert_eq!(directives("nothing-to-see-here"), Directives::default());
    }

    /// Section 5.4.
    #[test]
    fn pragma_counts_where_nothing_else_is_said() {
        let mut request = headers("pragma", &["foo, No-Cache"]);
        assert!(Directives::of(&request).no_cache);
        request.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Directives::of(&request).no_cache);
        assert!(!Directives::of(&headers("pragma", &["x"])).no_cache);
    }

    /// RFC 9213 section 2.1.
    #[test]
    fn targeted_fields_are_structured() {
        let read = |lines: &[&str]| {
            Control::targeted(headers("cdn-cache-control", lines).get_all("cdn-cache-control"))
        };
        let age = |line: &str| read(&[line]).map(|control| control.max_age);
        assert_eq!(age("max-age=3600"), Some(Some(3600)));
        assert_eq!(age("foobar, max-age=3600;x=1"), Some(Some(3600)));
        assert_eq!(age("max-age=99999999999"), Some(Some(MOST_SECONDS)));
        assert_eq!(age("max-age=-5"), Some(Some(0)));
        assert_eq!(age("foo"), Some(None));
        assert_eq!(age("a=(1 2), b=:AA==:"), Some(None));
        for unreadable in [
            "max-age =100",
            "max-age= 100",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age",
            "MaX-aGe=1",
            "",
            "max-age=(1 2)",
        ] {
            assert_eq!(age(unreadable), None, "{unreadable}");
        }
        let both = read(&["max-age=60", "no-store"]).unwrap();
        assert_eq!((both.max_age, both.no_store), (Some(60), true));
        assert!(!read(&["no-store=?0, max-age=1"]).unwrap().no_store);
        assert!(read(&["no-cache=\"a\""]).unwrap().names_fields);
    }

    proptest! {
        #[test]
        fn nothing_panics(line in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'='), Just(b'\\'), 32..=126_u8], 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.insert(CACHE_CONTROL, value);
                let (_, _, _) = (Control::of(&headers), Directives::of(&headers), named_fields(&headers).count());
                let _ = Control::targeted(headers.get_all(CACHE_CONTROL));
            }
        }

        /// What is well-formed and stands once, the engine reads the same.
        #[test]
        fn the_engine_agrees(
            age in proptest::option::of(0_u32..2_147_483_647), shared in proptest::option::of(0_u32..2_147_483_647),
            flags in proptest::sample::subsequence(vec!["no-store", "private", "public", "must-revalidate", "x=\"a, b\""], 0..5),
        ) {
            let mut words: Vec<String> = flags.iter().map(ToString::to_string).collect();
            words.extend(age.map(|age| format!("max-age={age}")));
            words.extend(shared.map(|age| format!("s-maxage={age}")));
            let headers = headers("cache-control", &[&words.join(", ")]);
            let (ours, theirs) = (Control::of(&headers), CacheControl::from_headers_named("cache-control", &headers).unwrap());
            prop_assert_eq!(ours.max_age, theirs.max_age().unwrap().map(u64::from));
            prop_assert_eq!(ours.s_maxage, theirs.s_maxage().unwrap().map(u64::from));
            prop_assert_eq!(ours.no_store, theirs.no_store());
            prop_assert_eq!(ours.public, theirs.public());
            prop_assert_eq!(ours.private, theirs.private());
            prop_assert_eq!(ours.must_revalidate, theirs.must_revalidate());
        }
    }
}
