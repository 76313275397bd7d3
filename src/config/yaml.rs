//! From YAML text to a tree in which every value knows its place.
//!
//! The text is read twice: a marked parse (saphyr-parser) gives positions and styles, serde_yaml gives the values. Both
//! must agree, so that neither accepts what the other refuses. The marked parse goes first because it is the one that
//! counts: serde_yaml never sees a text that is too large, too deep or expands to too much.

mod marked;
mod places;
mod second;

use crate::value::{At, Code, Issue, Issues, Spanned};
use places::Places;
use std::borrow::Cow;
use std::collections::HashMap;

/// The longest text that is read.
pub const MAX_BYTES: usize = 8 << 20;
/// The deepest nesting, aliases expanded.
pub const MAX_DEPTH: usize = 64;
/// The most values a text may hold, aliases expanded.
pub const MAX_NODES: usize = 500_000;
/// Separators outside of and inside values; bounds the memory of a scanner that must look ahead to a closing bracket.
const MAX_SEPARATORS: usize = 1_500_000;
/// Findings of one text; nobody reads more.
const MAX_FINDINGS: usize = 100;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// A scalar's exact range; a flow collection up to its bracket or the end of its first line; a block map's first key;
    /// a block list's first dash.
    pub at: At,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Text, number, boolean or nothing.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A map without duplicate keys, in the order of the file.
    Map(Vec<Entry>),
    /// Something that has been reported already: readers step over it in silence.
    Refused,
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The text of the key.
    pub key: Spanned<String>,
    /// The value.
    pub value: Node,
}

/// A value that is one word.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Null, boolean, number or string, never anything else.
    pub value: serde_yaml::Value,
    /// Written without quotes and not as a block.
    pub plain: bool,
    /// Comes from the environment, a file or a credential: must not be shown.
    pub secret: bool,
    /// The text before interpolation, if there was any.
    pub written: Option<String>,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn value(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => {
                entries.iter().find(|entry| entry.key.value == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// Whether this is `null` or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.value.is_null())
    }
}

impl Scalar {
    /// Whether the text of a scalar, not yet a value, is what YAML 1.2 (10.3.2) takes for null.
    fn is_nothing(&self) -> bool {
        self.plain && matches!(self.value.as_str(), Some("" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads one text. Findings go to `issues`; `None` if the text cannot be used at all.
///
/// A tree may come back although there are findings (a duplicate key, a `yes`), so that more can be found in it: what
/// was reported is [`Kind::Refused`] or left out. Depth, size and number of values are bounded; no input panics.
pub fn parse(file: u16, text: &str, issues: &mut Issues) -> Option<Node> {
    let mut findings = Findings { issues, room: MAX_FINDINGS };
    let read = admit(file, text).and_then(|()| {
        // The parsers differ on a block text that ends without a line break.
        let ended = if text.ends_with('\n') { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}\n")) };
        both(&Places::new(file, &ended, text.len()), &mut findings)
    });
    read.map_err(|issue| findings.add(issue)).ok().flatten()
}

/// The two readings and what lies between them.
fn both(places: &Places<'_>, findings: &mut Findings<'_>) -> Result<Option<Node>, Issue> {
    let (mut root, whole) = marked::read(places, findings)?;
    if whole && matches!(&root.kind, Kind::Scalar(scalar) if scalar.is_nothing()) {
        let empty = Issue::new(Code::EMPTY, "the file holds nothing").at(root.at);
        return Err(empty.help("a configuration begins with `version: 1`"));
    }
    let duplicates = check(&mut root, findings);
    if !whole {
        return Ok(None);
    }
    second::fill(&mut root, places)?;
    if duplicates {
        keep_first(&mut root);
    }
    Ok(Some(root))
}

/// Findings of one text, each once, up to a number that can be read.
struct Findings<'a> {
    issues: &'a mut Issues,
    room: usize,
}

impl Findings<'_> {
    fn add(&mut self, issue: Issue) {
        // An alias brings the same finding again.
        if self.room > 0 && !self.issues.0.iter().rev().take(MAX_FINDINGS).any(|known| *known == issue) {
            self.room -= 1;
            self.issues.push(issue);
        }
    }
}

/// Refuses a text before any parser sees it.
fn admit(file: u16, text: &str) -> Result<(), Issue> {
    let start = At { file, start: 0, end: 0 };
    if text.len() > MAX_BYTES {
        let size = text.len().div_ceil(1 << 20);
        let issue =
            Issue::new(Code::TOO_MUCH, format!("the file is too large: {size} MiB, at most 8 MiB are read"));
        return Err(issue.at(start));
    }
    if let Some((offset, found)) = text.char_indices().find(|(offset, c)| is_foreign(text, *offset, *c)) {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let at = At {
            file,
            start: offset,
            end: offset.saturating_add(u32::try_from(found.len_utf8()).unwrap_or(1)),
        };
        return Err(foreign(found).at(at));
    }
    let separators = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b':' | b'\n')).count();
    if separators > MAX_SEPARATORS {
        return Err(Issue::new(Code::TOO_MUCH, "the file holds too many values").at(start));
    }
    Ok(())
}

/// Whether a character may not stand in a configuration.
///
/// YAML 1.2 (5.1) without what the two parsers, or an editor, could take for a line break of its own.
fn is_foreign(text: &str, offset: usize, c: char) -> bool {
    match c {
        '\r' => text.as_bytes().get(offset + 1) != Some(&b'\n'),
        '\t' | '\n' | ' '..='~' => false,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => true,
        _ => c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'),
    }
}

fn foreign(c: char) -> Issue {
    match c {
        '\u{feff}' => Issue::new(Code::SYNTAX, "a byte order mark stands in the text")
            .help("save the file as UTF-8 without a byte order mark"),
        '\r' => Issue::new(Code::SYNTAX, "a carriage return without a line feed stands in the text")
            .help("end lines with LF or CRLF"),
        '\u{85}' | '\u{2028}' | '\u{2029}' => Issue::new(
            Code::SYNTAX,
            format!("an invisible line break stands in the text (U+{:04X})", u32::from(c)),
        ),
        _ => {
            Issue::new(Code::SYNTAX, format!("a character that YAML does not allow (U+{:04X})", u32::from(c)))
                .help("in a double-quoted value, write it as an escape such as `\\u001b`")
        }
    }
}

/// Reports duplicate keys and words of older YAML; true if there are duplicates.
fn check(node: &mut Node, findings: &mut Findings<'_>) -> bool {
    let refused = match &node.kind {
        Kind::Scalar(scalar) => old_yaml(scalar).map(|issue| issue.at(node.at)),
        _ => None,
    };
    if let Some(issue) = refused {
        findings.add(issue);
        node.kind = Kind::Refused;
    }
    let mut duplicates = false;
    match &mut node.kind {
        Kind::Scalar(_) | Kind::Refused => {}
        Kind::Seq(items) => items.iter_mut().for_each(|item| duplicates |= check(item, findings)),
        Kind::Map(entries) => {
            duplicates = report_duplicates(entries, findings);
            entries.iter_mut().for_each(|entry| duplicates |= check(&mut entry.value, findings));
        }
    }
    duplicates
}

fn report_duplicates(entries: &[Entry], findings: &mut Findings<'_>) -> bool {
    let mut first: HashMap<&str, At> = HashMap::with_capacity(entries.len());
    let mut twice = false;
    for Spanned { value: key, at } in entries.iter().map(|entry| &entry.key) {
        if let Some(earlier) = first.get(key.as_str()) {
            twice = true;
            let issue =
                Issue::new(Code::DUPLICATE_KEY, format!("key `{key}` stands twice in one map")).at(*at);
            findings.add(issue.label("again").and(*earlier, "first").help("remove one, or rename it"));
        } else {
            first.insert(key, *at);
        }
    }
    twice
}

/// What YAML 1.1 would take for a boolean or an octal number and YAML 1.2 for text.
fn old_yaml(scalar: &Scalar) -> Option<Issue> {
    let text = scalar.value.as_str().filter(|_| scalar.plain)?;
    let truth = match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" => Some("true"),
        "no" | "off" | "n" => Some("false"),
        _ => None,
    };
    if let Some(truth) = truth {
        let issue = Issue::new(Code::SUBSET, format!("`{text}` is neither `true` nor `false`"));
        return Some(issue.help(format!("write `{truth}`, or quote it if the word is meant: \"{text}\"")));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let octal =
        digits.strip_prefix("0o").or_else(|| digits.strip_prefix('0')).filter(|rest| !rest.is_empty())?;
    octal.bytes().all(|byte| byte.is_ascii_digit()).then(|| {
        let issue = Issue::new(Code::SUBSET, format!("`{text}` could be an octal number"));
        issue.help(format!("write the number in decimal without a leading zero, or quote it: \"{text}\""))
    })
}

/// Drops every entry but the first of the same key; the others have been reported.
fn keep_first(node: &mut Node) {
    match &mut node.kind {
        Kind::Scalar(_) | Kind::Refused => {}
        Kind::Seq(items) => items.iter_mut().for_each(keep_first),
        Kind::Map(entries) => {
            let mut seen = std::collections::HashSet::new();
            entries.retain(|entry| seen.insert(entry.key.value.clone()));
            entries.iter_mut().for_each(|entry| keep_first(&mut entry.value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_yaml::Value;

    fn read(text: &str) -> (Option<Node>, Issues) {
        let mut issues = Issues::default();
        let node = parse(3, text, &mut issues);
        assert!(node.is_some() || !issues.0.is_empty(), "refused without a reason: {text:?}");
        for issue in &issues.0 {
            assert_eq!(issue.at.file, 3, "{issue:?}");
            let range = issue.at.start as usize..issue.at.end as usize;
            assert!(text.get(range).is_some(), "{issue:?} lies outside of the text");
        }
        (node, issues)
    }

    fn good(text: &str) -> Node {
        let (node, issues) = read(text);
        assert_eq!(issues.0, [], "{text}");
        node.unwrap()
    }

    /// The code and the marked text of every finding.
    fn found(text: &str) -> Vec<(Code, &str)> {
        let (_, issues) = read(text);
        issues
            .0
            .iter()
            .map(|issue| (issue.code, &text[issue.at.start as usize..issue.at.end as usize]))
            .collect()
    }

    fn only(text: &str) -> (Code, &str) {
        let found = found(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        found[0]
    }

    /// The marked text of every node, keys and values, depth first.
    fn marked<'t>(node: &Node, text: &'t str, into: &mut Vec<&'t str>) {
        let slice = |at: At| &text[at.start as usize..at.end as usize];
        into.push(slice(node.at));
        match &node.kind {
            Kind::Scalar(_) | Kind::Refused => {}
            Kind::Seq(items) => items.iter().for_each(|item| marked(item, text, into)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                into.push(slice(entry.key.at));
                marked(&entry.value, text, into);
            }),
        }
    }

    fn marks(text: &str) -> Vec<&str> {
        let mut into = Vec::new();
        marked(&good(text), text, &mut into);
        into
    }

    fn scalar(node: &Node) -> &Scalar {
        match &node.kind {
            Kind::Scalar(scalar) => scalar,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_have_values_and_exact_places() {
        assert_eq!(
            marks("a: 1\nb: \"x\\\" y\"  \nc: 'it''s'   # note\nd: true\ne:\nf: ~\n"),
            ["a", "a", "1", "b", "\"x\\\" y\"", "c", "'it''s'", "d", "true", "e", "", "f", "~"]
        );
        let node = good(
            "{i: -5, u: 18446744073709551615, f: 1.5, h: 0x10, s: 1.2.3.4:80, t: 'true', b: true, n: null}",
        );
        let value = |key: &str| scalar(node.value(key).unwrap()).value.clone();
        assert_eq!(value("i"), Value::from(-5));
        assert_eq!(value("u"), Value::from(u64::MAX));
        assert_eq!(value("f"), Value::from(1.5));
        assert_eq!(value("h"), Value::from(16));
        assert_eq!(value("s"), Value::from("1.2.3.4:80"));
        assert_eq!(value("t"), Value::from("true"));
        assert_eq!(value("b"), Value::from(true));
        assert!(node.value("n").unwrap().is_null());
        assert!(!scalar(node.value("t").unwrap()).plain);
    }

    #[test]
    fn collections_are_marked_where_they_begin() {
        assert_eq!(
            marks("a:\n  b: { x: 1, y: [ 2, 3] } # c\n  c:\n  - d\n  - e: f\n  g: [1,\n   2]\n"),
            [
                "a",
                "a",
                "b",
                "b",
                "{ x: 1, y: [ 2, 3] }",
                "x",
                "1",
                "y",
                "[ 2, 3]",
                "2",
                "3",
                "c",
                "",
                "d",
                "e",
                "e",
                "f",
                "g",
                "[1,",
                "1",
                "2"
            ]
        );
    }

    #[test]
    fn places_count_bytes_also_behind_wide_characters_and_crlf() {
        let text = "é: 🦀🦀\r\n\"日本\": [ü, \"ß\"]\r\nlast: x\r\n";
        assert_eq!(marks(text), ["é", "é", "🦀🦀", "\"日本\"", "[ü, \"ß\"]", "ü", "\"ß\"", "last", "x"]);
        let long = format!("a: {}\nb: é{}\nc: end\n", "🦀".repeat(500), "x".repeat(300));
        assert_eq!(marks(&long).last(), Some(&"end"));
    }

    #[test]
    fn block_texts_are_read_by_both() {
        assert_eq!(scalar(good("a: |\n  end").value("a").unwrap()).value, Value::from("end\n"));
        let node = good("a: |\n  one\n  two\nb: >-\n  three\n  four\nc: plain\n  more\n");
        assert_eq!(scalar(node.value("a").unwrap()).value, Value::from("one\ntwo\n"));
        assert_eq!(scalar(node.value("b").unwrap()).value, Value::from("three four"));
        assert_eq!(scalar(node.value("c").unwrap()).value, Value::from("plain more"));
    }

    #[test]
    fn aliases_repeat_the_value_and_keep_its_place() {
        let text = "a: &x {k: [1, 2]}\nb: *x\nc: &s text\nd: *s\n";
        assert_eq!(
            marks(text),
            [
                "a",
                "a",
                "{k: [1, 2]}",
                "k",
                "[1, 2]",
                "1",
                "2",
                "b",
                "{k: [1, 2]}",
                "k",
                "[1, 2]",
                "1",
                "2",
                "c",
                "text",
                "d",
                "text"
            ]
        );
    }

    #[test]
    fn duplicate_keys_are_all_found_and_the_first_stays() {
        let text = "a: 1\nb: {x: 1, x: 2, x: 3}\n\"a\": 2\n";
        let (node, issues) = read(text);
        let places: Vec<_> = issues.0.iter().map(|issue| (issue.at.start, issue.also[0].0.start)).collect();
        assert_eq!(places, [(27, 0), (15, 9), (21, 9)]);
        assert!(issues.0.iter().all(|issue| issue.code == Code::DUPLICATE_KEY));
        let node = node.unwrap();
        assert_eq!(scalar(node.value("a").unwrap()).value, Value::from(1));
        assert_eq!(scalar(node.value("b").unwrap().value("x").unwrap()).value, Value::from(1));
    }

    #[test]
    fn old_booleans_and_octals_are_refused_as_plain_values_only() {
        for word in ["yes", "No", "ON", "off", "y", "N", "0755", "-012", "0o17", "+00"] {
            assert_eq!(only(&format!("k: {word}")), (Code::SUBSET, word));
            assert_eq!(only(&format!("[1, {word}]")), (Code::SUBSET, word));
            good(&format!("k: \"{word}\""));
            good(&format!("{word}: 1"));
        }
        for fine in ["0", "0.5", "10", "0x1f", "00ff", "1e3", "yesterday", "-0"] {
            good(&format!("k: {fine}"));
        }
        let (node, issues) = read("a: yes\nb: no\nc: 1\n");
        assert_eq!(issues.0.len(), 2);
        assert_eq!(node.unwrap().value("a").unwrap().kind, Kind::Refused);
    }

    #[test]
    fn yaml_outside_the_subset_is_refused_with_its_place() {
        for (text, mark) in [
            ("a: !foo 1", "!foo 1"),
            ("a: !!str 1", "!!str 1"),
            ("a: ! 1", "! 1"),
            ("a: !t\n  b: 1\n", "!t"),
            ("base: &b {x: 1}\nc: {<<: *b, y: 2}", "<<"),
            ("? [a]\n: 1\n", "[a]"),
            ("{{ x }: 1}", "{ x }"),
            ("a: &k v\n*k : 1\n", "*k"),
            ("a: 1\n---\nb: 2\n", "---"),
            (": 1", ""),
            ("a: &x [*x]", "*x"),
        ] {
            assert_eq!(only(text), (Code::SUBSET, mark), "{text}");
        }
        good("---\na: 1\n...\n");
        good("\"<<\": 1");
        good("404: a\ntrue: b\n1.5: c\n");
    }

    #[test]
    fn findings_outside_the_subset_do_not_hide_others() {
        let codes: Vec<_> = found("a: !t 1\nb: yes\nb: 0755\n").into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, [Code::SUBSET, Code::DUPLICATE_KEY, Code::SUBSET, Code::SUBSET]);
    }

    #[test]
    fn an_empty_document_is_an_issue() {
        for text in ["", "\n\n", "# only a comment\n", "---\n", "~", "null"] {
            assert_eq!(only(text).0, Code::EMPTY, "{text:?}");
        }
    }

    #[test]
    fn text_that_needs_quotes_is_told_so() {
        for text in [
            "r: { match: GET /{id}, to: app }",
            "h: { x: ${path.id} }",
            "h: [ ${path.id} ]",
            "h: {x: a${path.id}}",
            "m: {id}/x",
            "hosts: [*.example.com]",
            "hosts:\n- *.example.com\n",
        ] {
            assert_eq!(only(text).0, Code::QUOTE_THIS, "{text}");
        }
        assert_eq!(only("hosts: [*.example.com]").1, "*.example.com");
        good("h: ${path.id}");
        good("h: { x: \"${path.id}\" }");
    }

    #[test]
    fn syntax_errors_have_a_place_and_help() {
        for text in [
            "a: 'open",
            "a: \"open",
            "a: [1, 2",
            "a: }",
            "a: b: c",
            "%",
            "%\n",
            "a:\n\t- b\n",
            "a: @x",
            "a: `x",
            "-\tb: 1\n\tc: 2",
            "a\nb: 1",
            "\"\\q\"",
            "a: |x",
            "&",
            "*",
            "!",
            "? ",
            "{a: 1, b",
            "[a}",
            "%YAML 9.9.9\n---\na",
        ] {
            let (node, issues) = read(text);
            assert!(node.is_none() && issues.0.len() == 1, "{text:?}: {issues:?}");
        }
        let (_, issues) = read("é: @x");
        assert_eq!((issues.0[0].at.start, issues.0[0].at.end), (4, 5));
        assert_eq!(issues.0[0].notes, ["help: quote a value that begins with this character"]);
        let (_, issues) = read("a:\n\tb: 1\n");
        assert_eq!(issues.0[0].notes, ["help: indent with spaces, not with tabs"]);
    }

    #[test]
    fn characters_that_do_not_belong_are_refused_where_they_stand() {
        for (text, mark) in [
            ("\u{feff}a: 1", "\u{feff}"),
            ("a: \0", "\0"),
            ("é: x\u{1b}[0m", "\u{1b}"),
            ("a: \u{2028}", "\u{2028}"),
            ("# \u{85}", "\u{85}"),
            ("a: 1\rb: 2", "\r"),
            ("a: \u{7f}", "\u{7f}"),
            ("a: \u{ffff}", "\u{ffff}"),
        ] {
            assert_eq!(only(text), (Code::SYNTAX, mark), "{text:?}");
        }
        good("a: \"\\0 \\u2028\"");
    }

    #[test]
    fn depth_is_bounded_in_every_style() {
        for (open, close) in
            [("[", "]"), ("{a: ", "}"), ("- ", ""), ("[{a: ", "}]"), ("? ", ""), ("a: &x [", "]")]
        {
            for depth in [65, 300, 100_000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let found = found(&text);
                assert_eq!(found.len(), 1, "{open} {depth}");
                // A bracket is also refused where a one-line key is not possible; either way there is one finding.
                assert!(
                    matches!(found[0].0, Code::TOO_MUCH | Code::SYNTAX | Code::QUOTE_THIS),
                    "{open} {depth}: {found:?}"
                );
            }
        }
        assert_eq!(only(&"[".repeat(100_000)).0, Code::TOO_MUCH);
        assert_eq!(only(&format!("{}1{}", "[".repeat(65), "]".repeat(65))).0, Code::TOO_MUCH);
        good(&format!("{}1{}", "[".repeat(64), "]".repeat(64)));
        let block: String = (0..70).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert_eq!(only(&block).0, Code::TOO_MUCH);
    }

    #[test]
    fn aliases_cannot_make_it_deeper() {
        let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(40), "]".repeat(40));
        let text = format!("a: &a {}\nb: {}\n", nest("1"), nest("*a"));
        assert_eq!(only(&text), (Code::TOO_MUCH, "*a"));
    }

    #[test]
    fn a_billion_laughs_are_not_laughed() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(only(&text).0, Code::TOO_MUCH);
        // Small enough for us, too much for serde_yaml's own bound.
        let text = format!("a: &a [1]\nb: [{}]\n", vec!["*a"; 10_000].join(", "));
        let (node, issues) = read(&text);
        assert!(node.is_some() || issues.0[0].code == Code::TOO_MUCH);
    }

    #[test]
    fn size_is_bounded() {
        assert_eq!(only(&"x".repeat(10 << 20)).0, Code::TOO_MUCH);
        assert_eq!(only(&format!("[{}]", "a,".repeat(600_000))).0, Code::TOO_MUCH);
        assert_eq!(only(&format!("[{}]", ",".repeat(2_000_000))).0, Code::TOO_MUCH);
        assert_eq!(only(&"- a\n".repeat(500_001)).0, Code::TOO_MUCH);
        let text = format!("a: {}", "x".repeat(4 << 20));
        assert_eq!(scalar(good(&text).value("a").unwrap()).value.as_str().map(str::len), Some(4 << 20));
    }

    #[test]
    fn hostile_repetition_stays_fast() {
        let started = std::time::Instant::now();
        for piece in [
            "- ", "? ", ": ", "a: ", "&a ", "*a ", "!a ", "'", "\"", "\\", "|", ">", "%", "#", "---\n",
            "...\n", "\t", "{", "}", "[", "]", ",", "[a: ", "{a: b}, ", "\"\\", "a\n\n", "\r\n", "é", "a #",
            "- - \n", "? a\n", "!!a!b ", "<<: ", "no, ",
        ] {
            for prefix in ["", "a: ", "[", "- ", "k: |\n  ", "k: 'x"] {
                let _ = read(&format!("{prefix}{}", piece.repeat(20_000)));
            }
        }
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

    #[test]
    fn findings_are_bounded_and_said_once() {
        assert_eq!(found(&format!("[{}]", "no, ".repeat(10_000))).len(), MAX_FINDINGS);
        assert_eq!(found("a: &x [no]\nb: *x\nc: *x\n").len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_text_panics(text in any::<String>()) {
            read(&text);
        }

        #[test]
        fn no_yaml_like_text_panics(pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "b: ", "- ", "? ", ": ", ":", "{", "}", "[", "]", ",", ", ", "\n", "\n  ", "\n\t", "\r\n", " ", "'", "\"",
                "\\", "\\x", "|\n", ">-\n ", "&a ", "*a", "!t ", "!!str ", "<<: ", "---\n", "...\n", "%YAML 1.2\n", "%TAG ! x\n",
                "# c\n", "é", "🦀", "0", "no", "1.5", "null", "~", "${x}", "@", "%", "`", "-", "\u{feff}", "\"\\u0000\"",
            ]), 0..40)) {
            read(&pieces.concat());
        }
    }
}
