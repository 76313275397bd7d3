//! YAML in block style, with quotes only where the text would be read as something else.

use super::super::yaml::{self, Kind, Node};
use super::{Origins, visible};
use crate::value::{At, Issues};
use serde_yaml::Value;

/// Where comments begin, unless a line is longer.
const COMMENT_COLUMN: usize = 48;

/// Words that are no text without quotes, in YAML 1.1 or 1.2.
const RESERVED: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];

/// One line, and where its value stands if it has one.
struct Line {
    text: String,
    at: Option<At>,
}

/// The text of a tree. With `origins`, every line that has a value says where it comes from.
pub(super) fn text(tree: &Node, origins: Option<&Origins<'_>>) -> String {
    let mut text = String::new();
    for line in lines(tree, tree.at) {
        match line.at.zip(origins) {
            Some((at, origins)) => {
                let (line, origin) = (line.text, origins.of(at));
                text.push_str(&format!("{line:<COMMENT_COLUMN$}  # {origin}\n"));
            }
            None => {
                text.push_str(&line.text);
                text.push('\n');
            }
        }
    }
    text
}

/// The lines of a value that stands at `at`; a value that fits one line is one.
fn lines(node: &Node, at: At) -> Vec<Line> {
    let one = |text: String| vec![Line { text, at: Some(at) }];
    match &node.kind {
        Kind::Scalar(scalar) => one(word(&visible(scalar))),
        Kind::Refused => one("null".to_owned()),
        Kind::Map(entries) if entries.is_empty() => one("{}".to_owned()),
        Kind::Seq(items) if items.is_empty() => one("[]".to_owned()),
        Kind::Seq(items) => items.iter().flat_map(|item| indented(lines(item, item.at), "- ")).collect(),
        Kind::Map(entries) => entries
            .iter()
            .flat_map(|entry| keyed(&quoted(&entry.key.value), &entry.value, entry.key.at))
            .collect(),
    }
}

/// A key and its value: behind it, or below it.
fn keyed(key: &str, value: &Node, at: At) -> Vec<Line> {
    let inside = lines(value, at);
    let is_word = matches!(value.kind, Kind::Scalar(_) | Kind::Refused);
    match inside.as_slice() {
        [Line { text, at }] if is_word || text == "{}" || text == "[]" => {
            vec![Line { text: format!("{key}: {text}"), at: *at }]
        }
        _ => std::iter::once(Line { text: format!("{key}:"), at: None })
            .chain(indented(inside, "  "))
            .collect(),
    }
}

/// The first line behind `first`, the others behind as many spaces.
fn indented(lines: Vec<Line>, first: &str) -> Vec<Line> {
    let spaces = " ".repeat(first.len());
    let indent = |(number, line): (usize, Line)| {
        let begin = if number == 0 { first } else { &spaces };
        Line { text: format!("{begin}{}", line.text), at: line.at }
    };
    lines.into_iter().enumerate().map(indent).collect()
}

fn word(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => "null".to_owned(),
    }
}

/// The text, in quotes if it needs them.
fn quoted(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { in_quotes(text) }
}

/// Whether the text is read as itself. The simple cases are decided by their letters, the others by reading them.
fn is_plain(text: &str) -> bool {
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(simple) {
        return !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    }
    // As a key, `<<` is YAML 1.1's merge key.
    if text.is_empty() || text == "<<" || text.contains(char::is_control) {
        return false;
    }
    let mut issues = Issues::default();
    let read = yaml::parse(0, &format!("k: {text}\n"), &mut issues);
    let as_value = match read.as_ref().and_then(|map| map.value("k")).map(|value| &value.kind) {
        Some(Kind::Scalar(scalar)) => scalar.value.as_str() == Some(text),
        _ => false,
    };
    as_value && issues.0.is_empty()
}

/// A double-quoted scalar (YAML 1.2, 7.3.1) on one line.
fn in_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // What the reader does not take as it is.
            _ if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_stand_where_they_are_needed() {
        for plain in [
            "app",
            "GET /orders/{id}",
            "/old/{rest...}",
            "127.0.0.1:8080",
            "http/1.1",
            "30s",
            "${path.id}",
            "a b",
            "it's",
            "x#y",
            "10%",
            "1.2.3",
        ] {
            assert_eq!(quoted(plain), plain);
        }
        for text in [
            "", "true", "No", "1", "1.5", "0x10", "007", "~", "null", "- a", "a: b", "a #b", "*.x", "&a",
            "[::1]", " a", "a ", "{x}", "\"", "a\nb", "%a", "a:", "?", ".inf", "\u{feff}", "<<",
        ] {
            assert!(quoted(text).starts_with('"'), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_reads_as_itself(text in prop_oneof!["\\PC{0,20}", "[ -~]{0,12}", "[a-z0-9:#{}\\[\\],&*!|>'\"%@` \n\t-]{0,12}", any::<String>()]) {
            let mut issues = Issues::default();
            let yaml = format!("outer:\n  - {}: {}\n", quoted("key"), quoted(&text));
            let read = yaml::parse(0, &yaml, &mut issues);
            prop_assert!(issues.0.is_empty(), "{yaml} {issues:?}");
            let outer = read.unwrap();
            let Some(Kind::Seq(items)) = outer.value("outer").map(|value| value.kind.clone()) else { panic!("{yaml}") };
            let Some(Kind::Scalar(scalar)) = items[0].value("key").map(|value| value.kind.clone()) else { panic!("{yaml}") };
            prop_assert_eq!(scalar.value.as_str(), Some(text.as_str()), "{}", yaml);
        }

        #[test]
        fn every_text_can_be_a_key(text in "\\PC{0,20}") {
            let mut issues = Issues::default();
            let yaml = format!("{}: 1\n", quoted(&text));
            let read = yaml::parse(0, &yaml, &mut issues);
            prop_assert!(read.is_some_and(|map| map.value(&text).is_some()), "{yaml} {issues:?}");
        }
    }
}
