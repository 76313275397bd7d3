//! Path patterns: `/orders/{id}`, `/files/{rest...}`, `/static/**`.

use super::path::{Above, Normalize, PathError, resolve, write_segment};
use super::text::text_value;
use smallvec::SmallVec;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A pattern has at most this many segments, so that a set of its parameters fits in 64 bits.
pub const MAX_SEGMENTS: usize = 64;

/// Which paths a rule is for, segment by segment.
///
/// `{name}` is one segment that is not empty. A tail, `{name...}` or `**`, can only be last and is everything from there
/// on: `/api/**` means `/api`, `/api/` and `/api/x/y`, never `/apix`. Without a tail a final slash is significant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    segments: Box<[Segment]>,
    tail: Option<Tail>,
}

/// One segment before the tail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Text in normal form; empty in last place, where the pattern ends in a slash.
    Literal(Box<str>),
    /// `{name}`.
    Param(Box<str>),
}

/// What stands for the rest of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tail {
    /// `**`. Captured as well, but it has no name.
    Unnamed,
    /// `{name...}`.
    Named(Box<str>),
}

impl PathPattern {
    /// The segments before the tail.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The tail, if it has one.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// Names of what is captured, in the order of captures. An unnamed tail is captured behind them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let tail = match &self.tail {
            Some(Tail::Named(name)) => Some(&**name),
            _ => None,
        };
        self.segments.iter().filter_map(Segment::name).chain(tail)
    }

    /// The number of the capture with this name.
    pub fn capture(&self, name: &str) -> Option<usize> {
        self.names().position(|other| other == name)
    }

    /// The number of the capture that holds the rest of the path.
    pub fn tail_capture(&self) -> Option<usize> {
        let params = self.segments.iter().filter(|segment| segment.is_param()).count();
        self.tail.as_ref().map(|_| params)
    }

    /// Whether exactly one path is meant.
    pub fn is_literal(&self) -> bool {
        self.tail.is_none() && !self.segments.iter().any(Segment::is_param)
    }

    /// This pattern as a base put before another: `/shop` and `/orders/{id}` give `/shop/orders/{id}`, `/shop` and `/`
    /// give `/shop/`.
    ///
    /// # Errors
    /// This pattern has a tail, a name stands in both, or the result is too long; with help.
    pub fn join(&self, rest: &PathPattern) -> Result<PathPattern, String> {
        if self.tail.is_some() {
            return Err(format!(
                "the base `{self}` has a tail\nhelp: end it at a segment; routes are put behind it"
            ));
        }
        let base = match self.segments.split_last() {
            Some((last, before)) if last.is_empty() => before,
            _ => &self.segments,
        };
        let joined = PathPattern {
            segments: base.iter().chain(&rest.segments).cloned().collect(),
            tail: rest.tail.clone(),
        };
        joined.check().map(|()| joined)
    }

    /// Whether both mean the same paths: equal but for the names of parameters.
    pub fn same_shape(&self, other: &PathPattern) -> bool {
        self.tail.is_some() == other.tail.is_some()
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(ours, theirs)| ours.same_shape(theirs))
    }

    /// The pattern without names, such as `/orders/{}/**`. Equal for patterns of the same shape and only for those.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(segment.literal().unwrap_or("{}"));
        }
        if self.tail.is_some() {
            shape.push_str("/**");
        }
        shape
    }

    /// Whether every path that `other` means is meant by this pattern.
    pub fn covers(&self, other: &PathPattern) -> bool {
        let prefix_covered = self.segments.len() <= other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(ours, theirs)| ours.covers(theirs));
        prefix_covered
            && (self.tail.is_some() || other.tail.is_none() && self.segments.len() == other.segments.len())
    }

    /// What a path has in the places of parameters and tail. Only for a path that this pattern matches.
    pub fn captures(&self, path: &str) -> Params {
        let mut params = Params::default();
        let mut rest = path.get(1..);
        for segment in &self.segments {
            let start = path.len() - rest.unwrap_or_default().len();
            let (text, behind) = split_segment(rest.unwrap_or_default());
            if segment.is_param() {
                params.push(start, start + text.len());
            }
            rest = behind;
        }
        if self.tail.is_some() {
            params.push(path.len() - rest.unwrap_or_default().len(), path.len());
        }
        params
    }

    fn check(&self) -> Result<(), String> {
        if self.segments.len() > MAX_SEGMENTS {
            return Err(format!("`{self}` has more than {MAX_SEGMENTS} segments"));
        }
        for (at, name) in self.names().enumerate() {
            if self.names().take(at).any(|earlier| earlier == name) {
                return Err(format!(
                    "the parameter `{name}` stands twice in `{self}`\nhelp: give each parameter its own name"
                ));
            }
        }
        Ok(())
    }
}

impl Segment {
    /// The text, unless it is a parameter.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Segment::Literal(text) => Some(text),
            Segment::Param(_) => None,
        }
    }

    /// Whether it is `{name}`.
    pub fn is_param(&self) -> bool {
        matches!(self, Segment::Param(_))
    }

    /// Whether a segment of a path is meant.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Segment::Literal(literal) => **literal == *text,
            Segment::Param(_) => !text.is_empty(),
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Segment::Literal(_) => None,
            Segment::Param(name) => Some(name),
        }
    }

    fn is_empty(&self) -> bool {
        self.literal().is_some_and(str::is_empty)
    }

    fn same_shape(&self, other: &Segment) -> bool {
        self.literal() == other.literal()
    }

    fn covers(&self, other: &Segment) -> bool {
        match other {
            Segment::Literal(text) => self.matches(text),
            Segment::Param(_) => self.is_param(),
        }
    }
}

/// Captured parts of a path, as ranges of its bytes. The path they belong to is the one that was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(SmallVec<[Range<u32>; 4]>);

impl Params {
    /// The value of a capture as it stands in the path, with its escapes.
    pub fn value<'p>(&self, path: &'p str, capture: usize) -> Option<&'p str> {
        let range = self.0.get(capture)?;
        path.get(range.start as usize..range.end as usize)
    }

    /// All values in order.
    pub fn values<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        (0..self.len()).filter_map(move |capture| self.value(path, capture))
    }

    /// Number of captures.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is captured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, start: usize, end: usize) {
        let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
        self.0.push(offset(start)..offset(end));
    }
}

/// The first segment, and what follows the slash behind it.
pub fn split_segment(path: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', path.as_bytes()) {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..)),
        None => (path, None),
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Literal(text) => f.write_str(text),
            Segment::Param(name) => write!(f, "{{{name}}}"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            write!(f, "/{segment}")?;
        }
        match &self.tail {
            None => Ok(()),
            Some(Tail::Unnamed) => f.write_str("/**"),
            Some(Tail::Named(name)) => write!(f, "/{{{name}...}}"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or_else(|| no_slash(text))?;
        if let Some(end) = end_of_path(text) {
            return Err(behind_path(text, end));
        }
        let mut parts: Vec<Part> = rest.split('/').map(Part::parse).collect::<Result<_, _>>()?;
        check_normal(text)?;
        let tail = match parts.pop() {
            Some(Part::Tail(tail)) => Some(tail),
            other => {
                parts.extend(other);
                None
            }
        };
        let segments = parts.into_iter().map(Part::into_segment).collect::<Result<_, _>>()?;
        let pattern = PathPattern { segments, tail };
        pattern.check().map(|()| pattern)
    }
}

text_value!(PathPattern, "PathPattern", pattern: r"^/", "a path pattern: `/orders/{id}`, `/files/{rest...}`, `/static/**`");

/// One piece between slashes.
enum Part {
    Segment(Segment),
    Tail(Tail),
}

impl Part {
    fn parse(text: &str) -> Result<Part, String> {
        if text == "**" {
            return Ok(Part::Tail(Tail::Unnamed));
        }
        let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return match text.find(['{', '}', '*']) {
                None => Ok(Part::Segment(Segment::Literal(text.into()))),
                Some(_) => Err(not_a_segment(text)),
            };
        };
        match inner.strip_suffix("...") {
            Some(name) if is_name(name) => Ok(Part::Tail(Tail::Named(name.into()))),
            None if is_name(inner) => Ok(Part::Segment(Segment::Param(inner.into()))),
            _ => Err(not_a_param(text, inner)),
        }
    }

    fn into_segment(self) -> Result<Segment, String> {
        match self {
            Part::Segment(segment) => Ok(segment),
            Part::Tail(tail) => {
                let tail = PathPattern { segments: Box::default(), tail: Some(tail) }.to_string();
                let tail = tail.trim_start_matches('/');
                Err(format!("`{tail}` is not last\nhelp: use `{{name}}` for one segment in between"))
            }
        }
    }
}

/// Letters, digits, `_` and `-`, not beginning with a digit or `-`: what `${path.name}` can name.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn no_slash(text: &str) -> String {
    match text.split_once(' ') {
        Some((method, path)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            format!(
                "`{text}` does not begin with `/`\nhelp: write the path alone, `{path}`, and the method apart from it"
            )
        }
        _ => format!("`{text}` does not begin with `/`\nhelp: write `/{text}`"),
    }
}

/// Where a query or a fragment begins; braces may hold such marks by another mistake.
fn end_of_path(text: &str) -> Option<usize> {
    let mut in_braces = false;
    text.find(|c| {
        in_braces = c == '{' || in_braces && c != '}';
        !in_braces && (c == '?' || c == '#')
    })
}

fn behind_path(text: &str, end: usize) -> String {
    let (path, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    if rest.starts_with('#') {
        format!("`{text}` has a fragment, which clients never send\nhelp: write `{path}`")
    } else {
        format!("`{text}` has a query\nhelp: write `{path}`, and the query as `query: {{ name: value }}`")
    }
}

fn not_a_segment(text: &str) -> String {
    match text {
        "*" => {
            "`*` is not a pattern\nhelp: use `{name}` for one segment, `**` in last place for all that follow"
                .to_owned()
        }
        _ if text.contains('*') => format!(
            "`{text}` contains `*`, which stands for nothing here\nhelp: use `{{name}}` for a whole segment, `**` in last place for all that follow"
        ),
        _ => format!(
            "`{text}` mixes text and a parameter\nhelp: a parameter is a whole segment: write `{{name}}`, and take it apart behind the gateway"
        ),
    }
}

fn not_a_param(text: &str, inner: &str) -> String {
    let help = match inner.trim_matches(['*', '.', '?', ' ']) {
        "" => "name it, as in `{id}` or `{rest...}`".to_owned(),
        name if !is_name(name) => match name.split_once([':', '=']) {
            Some((name, _)) if is_name(name) => {
                format!("write `{{{name}}}`; a parameter has no pattern of its own")
            }
            _ => "a name is made of letters, digits, `_` and `-`, and begins with a letter or `_`".to_owned(),
        },
        name if inner.contains(['*', '.']) => format!("for the rest of the path write `{{{name}...}}`"),
        name => format!("write `{{{name}}}`"),
    };
    format!("`{text}` is not a parameter\nhelp: {help}")
}

/// A request's path is matched in normal form, so a pattern in any other form would never match.
fn check_normal(text: &str) -> Result<(), String> {
    let (strict, mended) = (normal_form(text, Normalize::Strict), normal_form(text, Normalize::Lenient));
    match (strict, mended) {
        (Ok(normal), _) if normal == text => Ok(()),
        (Ok(normal), _) => {
            Err(format!("`{text}` is not in normal form and would never match\nhelp: write `{normal}`"))
        }
        (Err(error), Ok(normal)) if normal_form(&normal, Normalize::Strict).is_ok() => {
            Err(format!("`{text}` cannot match: {error}\nhelp: write `{normal}`"))
        }
        (Err(error), _) => {
            Err(format!("`{text}` cannot match: {error}\nhelp: requests with such a path are refused"))
        }
    }
}

/// As for a request, but parameters and tails stand for themselves.
fn normal_form(text: &str, mode: Normalize) -> Result<String, PathError> {
    let above = if mode == Normalize::Lenient { Above::Stop } else { Above::Refuse };
    resolve(text, above, |segment, out| {
        if segment.starts_with('{') {
            out.push_str(segment);
            return Ok(());
        }
        write_segment(segment, mode, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn patterns_print_as_written() {
        for text in [
            "/",
            "/a/b",
            "/a/",
            "/{id}",
            "/a/{id}/b/",
            "/{rest...}",
            "/a/{x}/{rest...}",
            "/**",
            "/a/**",
            "/a.json",
            "/%C3%A9/~x",
            "/.well-known/{x}",
            "/a:b",
            "/v1/{_a-1}",
        ] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn mistakes_get_help() {
        for (text, help) in [
            ("", "write `/`"),
            ("orders", "write `/orders`"),
            ("GET /orders", "path alone, `/orders`"),
            ("/a?b=c", "write `/a`, and the query"),
            ("/a#b", "write `/a`"),
            ("/{id}?b={c}", "write `/{id}`, and the query"),
            ("/*", "`**` in last place"),
            ("/a/*.json", "whole segment"),
            ("/a**", "whole segment"),
            ("/{id}.json", "whole segment"),
            ("/v{n}", "whole segment"),
            ("/{a}{b}", "letters"),
            ("/{", "whole segment"),
            ("/{}", "name it"),
            ("/{...}", "name it"),
            ("/{1a}", "begins with a letter"),
            ("/{id:[0-9]+}", "write `{id}`"),
            ("/{id?}", "write `{id}`"),
            ("/{*rest}", "write `{rest...}`"),
            ("/{rest..}", "write `{rest...}`"),
            ("/**/a", "in between"),
            ("/{rest...}/a", "in between"),
            ("/{rest...}/", "in between"),
            ("/{id}/x/{id}", "its own name"),
            ("/{id}/{id...}", "its own name"),
            ("/a//b", "write `/a/b`"),
            ("/a/../{id}", "write `/{id}`"),
            ("/a/./**", "write `/a/**`"),
            ("/%7euser", "write `/~user`"),
            ("/%c3%a9", "write `/%C3%A9`"),
            ("/café/{id}", "write `/caf%C3%A9/{id}`"),
            ("/a b", "write `/a%20b`"),
            ("/..", "write `/`"),
            ("/a%2fb", "are refused"),
            ("/a%zz", "are refused"),
        ] {
            let error = text.parse::<PathPattern>().expect_err(text);
            assert!(
                error.split_once("\nhelp: ").is_some_and(|(_, line)| line.contains(help)),
                "{text}: {error}"
            );
        }
        assert!("/a".repeat(65).parse::<PathPattern>().is_err());
        assert!("/a".repeat(64).parse::<PathPattern>().is_ok());
    }

    #[test]
    fn captures_are_numbered_in_order() {
        let path = "/octo/files/a/b";
        let files = pattern("/{owner}/files/{path...}");
        assert_eq!(files.names().collect::<Vec<_>>(), ["owner", "path"]);
        assert_eq!(
            (files.capture("path"), files.capture("x"), files.tail_capture()),
            (Some(1), None, Some(1))
        );
        assert_eq!(files.captures(path).values(path).collect::<Vec<_>>(), ["octo", "a/b"]);
        assert_eq!(pattern("/{a}/**").tail_capture(), Some(1));
        assert_eq!(pattern("/{a}").tail_capture(), None);
    }

    #[test]
    fn joining() {
        for (base, rest, joined) in [
            ("/shop", "/orders/{id}", "/shop/orders/{id}"),
            ("/shop/", "/orders", "/shop/orders"),
            ("/", "/orders", "/orders"),
            ("/", "/", "/"),
            ("/shop", "/", "/shop/"),
            ("/{tenant}", "/**", "/{tenant}/**"),
        ] {
            assert_eq!(pattern(base).join(&pattern(rest)).unwrap().to_string(), joined);
        }
        assert!(pattern("/a/**").join(&pattern("/b")).unwrap_err().contains("tail"));
        assert!(pattern("/{id}").join(&pattern("/{id}")).unwrap_err().contains("twice"));
        assert!(pattern(&"/a".repeat(40)).join(&pattern(&"/a".repeat(40))).is_err());
    }

    #[test]
    fn shapes_and_cover() {
        assert!(pattern("/a/{x}/**").same_shape(&pattern("/a/{y}/{z...}")));
        assert_eq!(pattern("/a/{x}/{r...}").shape(), "/a/{}/**");
        assert_eq!((pattern("/").shape(), pattern("/**").shape()), ("/".to_owned(), "/**".to_owned()));
        assert!(!pattern("/a").same_shape(&pattern("/a/")));
        for (wide, narrow, covers) in [
            ("/**", "/", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/{x}/**", true),
            ("/a/**", "/ab", false),
            ("/a/{x}/**", "/a/**", false),
            ("/{x}", "/a", true),
            ("/{x}", "/{y}", true),
            ("/{x}", "/", false),
            ("/a/{x}", "/a/**", false),
            ("/a/{x}/c", "/{y}/b/c", false),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), covers, "{wide} {narrow}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_prints_back(text in "[/{}a.*%2e?#é ]{0,16}") {
            if let Ok(pattern) = text.parse::<PathPattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
