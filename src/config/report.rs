//! Findings as text for people, as JSON, and as SARIF for code review tools.

use crate::value::issue::{CODES, Level, LineColumn};
use crate::value::{At, Code, Issue, Issues, Sources};
use serde_json::{Value, json};
use std::io::{self, Write};

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with the line in question and a caret below it.
    Human {
        /// Whether to use ANSI colours.
        color: bool,
    },
    /// One JSON object.
    Json,
    /// SARIF 2.1.0 (OASIS).
    Sarif,
}

/// Prints findings in the order they come in.
///
/// `tail` is said behind the summary of the text form, such as "The running configuration is unchanged."; without findings
/// that form prints nothing. Snippets show the text as written, so no value from outside can appear in them.
///
/// # Errors
/// Those of `out`.
pub fn report(
    out: &mut dyn Write,
    issues: &Issues,
    sources: &Sources,
    format: &Format,
    tail: &str,
) -> io::Result<()> {
    match format {
        Format::Human { color } => Human { out, sources, color: *color }.print(issues, tail),
        Format::Json => print_json(out, &as_json(issues, sources)),
        Format::Sarif => print_json(out, &as_sarif(issues, sources)),
    }
}

fn print_json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Characters of a line that are shown; longer ones are cut around the caret.
const WIDTH: usize = 110;
/// Characters kept before the caret when a line is cut.
const LEAD: usize = 40;
const TAB: &str = "    ";

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const RESET: &str = "\x1b[0m";

/// The text form.
struct Human<'a> {
    out: &'a mut dyn Write,
    sources: &'a Sources,
    color: bool,
}

impl Human<'_> {
    fn print(&mut self, issues: &Issues, tail: &str) -> io::Result<()> {
        for (index, issue) in issues.0.iter().enumerate() {
            if index > 0 {
                writeln!(self.out)?;
            }
            self.issue(issue)?;
        }
        match summary(issues) {
            Some(summary) if tail.is_empty() => writeln!(self.out, "{summary}"),
            Some(summary) => writeln!(self.out, "{summary} {tail}"),
            None => Ok(()),
        }
    }

    fn issue(&mut self, issue: &Issue) -> io::Result<()> {
        let head = self.painted(paint(issue), &format!("{}[{}]", level(issue), issue.code));
        let message = self.painted(BOLD, &clean(&issue.message));
        writeln!(self.out, "{head}: {message}")?;
        let gutter = self.gutter(issue);
        match issue.also.is_empty() && !issue.unshown {
            true => self.snippet(issue, gutter)?,
            false => self.places(issue, gutter)?,
        }
        let bar = self.painted(BLUE, "=");
        for note in &issue.notes {
            writeln!(self.out, "{:gutter$} {bar} {}", "", clean(note))?;
        }
        Ok(())
    }

    /// Width of the longest line number, as the arrows and bars stand below each other.
    fn gutter(&self, issue: &Issue) -> usize {
        let places = std::iter::once(issue.at).chain(issue.also.iter().map(|(at, _)| *at));
        let lines = places.filter_map(|at| self.sources.line_column(at));
        lines.map(|place| place.line.to_string().len()).max().unwrap_or(2)
    }

    /// One line for each place, with its note.
    fn places(&mut self, issue: &Issue, gutter: usize) -> io::Result<()> {
        let first = std::iter::once((issue.at, issue.label.as_str()));
        let places = first.chain(issue.also.iter().map(|(at, note)| (*at, note.as_str())));
        let places: Vec<_> = places.filter_map(|(at, note)| Some((self.sources.place(at)?, note))).collect();
        let width = places.iter().map(|(place, _)| place.chars().count()).max().unwrap_or(0);
        let arrow = self.painted(BLUE, "-->");
        for (place, note) in places {
            let line = format!("{:gutter$}{arrow} {place:width$}   {}", "", clean(note));
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// The line in question with a caret below the range.
    fn snippet(&mut self, issue: &Issue, gutter: usize) -> io::Result<()> {
        let (Some(place), Some(line)) = (self.sources.place(issue.at), Line::of(self.sources, issue.at))
        else {
            return Ok(());
        };
        let (arrow, bar) = (self.painted(BLUE, "-->"), self.painted(BLUE, "|"));
        let number = self.painted(BLUE, &format!("{:gutter$}", line.number));
        let Cut { text, indent, carets } = line.cut();
        let caret = format!("{} {}", "^".repeat(carets), clean(&issue.label));
        let caret = self.painted(paint(issue), caret.trim_end());
        writeln!(self.out, "{:gutter$}{arrow} {place}", "")?;
        writeln!(self.out, "{:gutter$} {bar}", "")?;
        writeln!(self.out, "{number} {bar} {}", text.trim_end())?;
        writeln!(self.out, "{:gutter$} {bar} {:indent$}{caret}", "", "")
    }

    fn painted(&self, paint: &str, text: &str) -> String {
        if self.color { format!("{paint}{text}{RESET}") } else { text.to_owned() }
    }
}

fn paint(issue: &Issue) -> &'static str {
    match issue.code.level() {
        Level::Error => RED,
        Level::Warning => YELLOW,
    }
}

/// `2 errors, 1 warning.`, or nothing.
fn summary(issues: &Issues) -> Option<String> {
    let count = |number: usize, word: &str| match number {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{number} {word}s")),
    };
    let counts = [count(issues.errors(), "error"), count(issues.warnings(), "warning")];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    (!counts.is_empty()).then(|| format!("{}.", counts.join(", ")))
}

/// Text that cannot move the cursor of a terminal: a key may hold any character.
fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => cleaned.push_str("\n     "),
            '\t' => cleaned.push_str(TAB),
            c if c.is_control() || is_bidi(c) => cleaned.extend(c.escape_unicode()),
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// Characters that change the order in which others are shown.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A line of a source, cut before and behind the range that is marked.
struct Line<'a> {
    number: usize,
    before: &'a str,
    marked: &'a str,
    behind: &'a str,
}

/// What is printed of a line.
struct Cut {
    text: String,
    /// Columns before the first caret.
    indent: usize,
    carets: usize,
}

impl<'a> Line<'a> {
    fn of(sources: &'a Sources, at: At) -> Option<Self> {
        let number = sources.line_column(at)?.line;
        let text: &str = &sources.source(at)?.text;
        let (head, tail) = text.split_at_checked(at.start as usize)?;
        let before = head.rsplit('\n').next().unwrap_or_default();
        let rest = tail.split('\n').next().unwrap_or_default();
        let rest = rest.strip_suffix('\r').unwrap_or(rest);
        let length = (at.end.saturating_sub(at.start) as usize).min(rest.len());
        let (marked, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        Some(Line { number, before, marked, behind })
    }

    fn cut(&self) -> Cut {
        let length = |text: &str| text.chars().count();
        let whole = length(self.before) + length(self.marked) + length(self.behind) <= WIDTH;
        let skipped = if whole { 0 } else { length(self.before).saturating_sub(LEAD) };
        let mut before: String = self.before.chars().skip(skipped).collect();
        if skipped > 0 {
            before.insert(0, '…');
        }
        let room = if whole { WIDTH } else { WIDTH.saturating_sub(length(&before)) };
        let marked: String = self.marked.chars().take(room).collect();
        let rest = length(self.marked) + length(self.behind);
        let behind: String = self.behind.chars().take(room.saturating_sub(length(&marked))).collect();
        let more = if length(&marked) + length(&behind) < rest { "…" } else { "" };
        let (before, marked, behind) = (clean(&before), clean(&marked), clean(&behind));
        // A range over several lines may end in blanks on the first.
        let (indent, carets) = (columns(&before), columns(marked.trim_end()).max(1));
        Cut { text: format!("{before}{marked}{behind}{more}"), indent, carets }
    }
}

/// Columns a terminal gives to a text.
fn columns(text: &str) -> usize {
    text.chars().map(column_width).sum()
}

/// By the East Asian Width property (UAX #11) in the coarse: enough to put a caret in the right place.
fn column_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff | 0x1f900..=0x1f9ff => 2,
        0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// File, first and last position of a place; positions count characters from 1, the end is exclusive.
struct Region<'a> {
    file: &'a str,
    start: LineColumn,
    end: LineColumn,
}

impl<'a> Region<'a> {
    fn of(sources: &'a Sources, at: At) -> Option<Self> {
        let start = sources.line_column(at)?;
        let end = sources.line_column(At { start: at.end, ..at }).unwrap_or(start);
        Some(Region { file: &sources.source(at)?.name, start, end })
    }
}

fn level(issue: &Issue) -> &'static str {
    if issue.is_error() { "error" } else { "warning" }
}

fn as_json(issues: &Issues, sources: &Sources) -> Value {
    let list: Vec<Value> = issues.0.iter().map(|issue| issue_as_json(issue, sources)).collect();
    json!({ "errors": issues.errors(), "warnings": issues.warnings(), "issues": list })
}

fn issue_as_json(issue: &Issue, sources: &Sources) -> Value {
    let mut value = json!({
        "code": issue.code.to_string(),
        "level": level(issue),
        "message": issue.message,
    });
    let related = issue.also.iter().map(|(at, note)| {
        let mut place = place_as_json(sources, *at);
        merge(&mut place, json!({ "note": note }));
        place
    });
    let related: Vec<Value> = related.collect();
    merge(&mut value, place_as_json(sources, issue.at));
    merge(&mut value, json!({ "label": issue.label, "notes": issue.notes, "related": related }));
    value
}

/// All members are there, with `null` for what stands in no file.
fn place_as_json(sources: &Sources, at: At) -> Value {
    let region = Region::of(sources, at);
    let region = region.as_ref();
    json!({
        "file": region.map(|r| r.file),
        "line": region.map(|r| r.start.line),
        "column": region.map(|r| r.start.column),
        "end_line": region.map(|r| r.end.line),
        "end_column": region.map(|r| r.end.column),
    })
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn as_sarif(issues: &Issues, sources: &Sources) -> Value {
    let mut codes: Vec<Code> = issues.0.iter().map(|issue| issue.code).collect();
    codes.sort();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| rule(*code)).collect();
    let results: Vec<Value> = issues
        .0
        .iter()
        .map(|issue| {
            let index = codes.binary_search(&issue.code).unwrap_or_default();
            result(issue, index, sources)
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "tollgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: Code) -> Value {
    let meaning = CODES.iter().find(|(known, _)| *known == code).map_or("", |(_, meaning)| meaning.trim());
    json!({ "id": code.to_string(), "shortDescription": { "text": meaning } })
}

fn result(issue: &Issue, rule: usize, sources: &Sources) -> Value {
    let label = (!issue.label.is_empty() && issue.also.is_empty()).then_some(&issue.label);
    let text: Vec<&str> =
        std::iter::once(&issue.message).chain(label).chain(&issue.notes).map(String::as_str).collect();
    let related = issue.also.iter().enumerate().filter_map(|(id, (at, note))| {
        let mut location = location(sources, *at)?;
        merge(&mut location, json!({ "id": id, "message": { "text": note } }));
        Some(location)
    });
    let related: Vec<Value> = related.collect();
    let locations: Vec<Value> = location(sources, issue.at).into_iter().collect();
    json!({
        "ruleId": issue.code.to_string(),
        "ruleIndex": rule,
        "level": level(issue),
        "message": { "text": text.join("\n") },
        "locations": locations,
        "relatedLocations": related,
    })
}

fn location(sources: &Sources, at: At) -> Option<Value> {
    let Region { file, start, end } = Region::of(sources, at)?;
    Some(json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(file) },
            "region": {
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            },
        },
    }))
}

/// A path as a URI reference (RFC 3986): absolute paths become `file:` URIs, a colon cannot be taken for a scheme.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len() + 8);
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte))
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::issue::Source;

    fn sources(texts: &[(&str, &str)]) -> Sources {
        Sources(
            texts
                .iter()
                .map(|(name, text)| Source { name: (*name).to_owned(), text: (*text).into() })
                .collect(),
        )
    }

    fn at(file: u16, text: &str, part: &str) -> At {
        let start = text.find(part).unwrap();
        At { file, start: start as u32, end: (start + part.len()) as u32 }
    }

    fn print(issues: Vec<Issue>, sources: &Sources, format: Format, tail: &str) -> String {
        let mut out = Vec::new();
        report(&mut out, &Issues(issues), sources, &format, tail).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn human(issues: Vec<Issue>, sources: &Sources) -> String {
        print(issues, sources, Format::Human { color: false }, "")
    }

    /// The snippet of a finding about one part of one text.
    fn snippet(text: &str, part: &str, label: &str) -> Vec<String> {
        let issue = Issue::new(Code::BAD_VALUE, "m").at(at(0, text, part)).label(label);
        human(vec![issue], &sources(&[("f", text)])).lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_text_form_is_as_specified() {
        let orders =
            format!("{}        limits: [{{ rate: 20/s, burts: 40, per: consumer }}]\n", "#\n".repeat(40));
        let routes = format!("{}a: GET /{{id}}\n{}b: GET /{{order}}\n", "#\n".repeat(11), "#\n".repeat(42));
        let sources = sources(&[("conf.d/orders.yaml", &orders), ("conf.d/routes.yaml", &routes)]);
        let issues = vec![
            Issue::new(Code::UNKNOWN_KEY, "unknown key `burts` in limit")
                .at(at(0, &orders, "burts"))
                .label("did you mean `burst`?")
                .note("allowed here: rate, burst, per, cost, on_missing, shared, shadow"),
            Issue::new(Code::TIE, "routes `orders.read` and `orders.item` match the same requests")
                .at(at(1, &routes, "GET /{id}"))
                .label("GET /{id}")
                .and(at(1, &routes, "GET /{order}"), "GET /{order}")
                .help("give one a header or method condition, or set `priority`"),
            Issue::new(Code::UNUSED, "upstream `billing` is never used"),
        ];
        let expected = "\
error[TG1203]: unknown key `burts` in limit
  --> conf.d/orders.yaml:41:32
   |
41 |         limits: [{ rate: 20/s, burts: 40, per: consumer }]
   |                                ^^^^^ did you mean `burst`?
   = allowed here: rate, burst, per, cost, on_missing, shared, shadow

error[TG1310]: routes `orders.read` and `orders.item` match the same requests
  --> conf.d/routes.yaml:12:4   GET /{id}
  --> conf.d/routes.yaml:55:4   GET /{order}
   = help: give one a header or method condition, or set `priority`

warning[TG2007]: upstream `billing` is never used
2 errors, 1 warning. The running configuration is unchanged.
";
        let format = Format::Human { color: false };
        assert_eq!(print(issues, &sources, format, "The running configuration is unchanged."), expected);
    }

    #[test]
    fn the_summary_counts_in_words() {
        let none = sources(&[]);
        let (error, warning) = (Issue::new(Code::EMPTY, "e"), Issue::new(Code::UNUSED, "w"));
        assert_eq!(print(vec![], &none, Format::Human { color: false }, "tail"), "");
        assert!(human(vec![error.clone()], &none).ends_with("\n1 error.\n"));
        assert!(human(vec![warning.clone(), warning], &none).ends_with("\n2 warnings.\n"));
        assert_eq!(
            human(vec![error.clone(), error], &none),
            "error[TG1312]: e\n\nerror[TG1312]: e\n2 errors.\n"
        );
    }

    #[test]
    fn carets_stand_below_tabs_and_wide_characters() {
        assert_eq!(snippet("é🦀日: x", "x", "here")[3..5], ["1 | é🦀日: x", "  |        ^ here"]);
        assert_eq!(
            snippet("\ta: \"日本\"", "\"日本\"", "")[3..5],
            ["1 |     a: \"日本\"", "  |        ^^^^^^"]
        );
        assert_eq!(snippet("e\u{301}: x", "x", "")[4], "  |    ^");
    }

    #[test]
    fn ranges_are_cut_at_the_end_of_the_line() {
        assert_eq!(
            snippet("a: [1,  \r\n 2]\r\nb: 1", "[1,  \r\n 2]", "list")[3..5],
            ["1 | a: [1,", "  |    ^^^ list"]
        );
        assert_eq!(snippet("a:", "", "")[4], "  | ^");
        let end = Issue::new(Code::SYNTAX, "m").at(At { file: 0, start: 3, end: 3 });
        assert!(human(vec![end], &sources(&[("f", "a:\n")])).contains("--> f:2:1\n  |\n2 | \n  | ^\n"));
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let text = format!("{}here{}", "a".repeat(5_000), "é".repeat(5_000));
        let lines = snippet(&text, "here", "this");
        assert!(lines[3].starts_with("1 | …aaa") && lines[3].ends_with("é…"), "{}", lines[3]);
        assert!(lines[3].chars().count() < 120);
        let column = lines[4].find('^').unwrap();
        assert_eq!(lines[3].chars().skip(column).take(4).collect::<String>(), "here");
        let lines = snippet(&text, &text, "all");
        assert!(lines[3].chars().count() < 120 && lines[3].ends_with('…') && lines[4].chars().count() < 130);
        let first = format!("x{}", "b".repeat(300));
        assert!(snippet(&first, "x", "")[3].starts_with("1 | xbbb"));
    }

    #[test]
    fn nothing_in_a_file_can_write_to_the_terminal() {
        let issue =
            Issue::new(Code::UNKNOWN_KEY, "unknown key `\u{1b}[2J\u{202e}`").label("\u{7}").note("a\nb");
        let text = human(vec![issue.at(At { file: 0, start: 0, end: 1 })], &sources(&[("f", "\u{202e}x")]));
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
        assert!(text.contains("`\\u{1b}[2J\\u{202e}`") && text.contains("= a\n     b"), "{text}");
    }

    #[test]
    fn places_that_do_not_exist_are_left_out() {
        let strange = [
            At::NOWHERE,
            At { file: 7, start: 0, end: 1 },
            At { file: 0, start: 1, end: 2 },
            At { file: 0, start: 900, end: 901 },
        ];
        for at in strange {
            let issue = Issue::new(Code::EMPTY, "m").at(at).and(at, "also");
            let sources = sources(&[("f", "é")]);
            assert_eq!(human(vec![issue.clone()], &sources), "error[TG1312]: m\n1 error.\n");
            assert_eq!(
                human(vec![Issue { also: vec![], ..issue.clone() }], &sources),
                "error[TG1312]: m\n1 error.\n"
            );
            print(vec![issue.clone()], &sources, Format::Json, "");
            print(vec![issue], &sources, Format::Sarif, "");
        }
        let cut = Issue::new(Code::EMPTY, "m").at(At { file: 0, start: 0, end: 1 });
        assert!(human(vec![cut], &sources(&[("f", "é")])).contains("1 | é\n  | ^"));
    }

    #[test]
    fn colours_are_used_when_asked_for() {
        let text = "a: b";
        let issue = Issue::new(Code::UNVERIFIED, "m").at(at(0, text, "b"));
        let printed = print(vec![issue], &sources(&[("f", text)]), Format::Human { color: true }, "");
        assert!(printed.starts_with("\u{1b}[1;33mwarning[TG2008]\u{1b}[0m: "), "{printed:?}");
    }

    #[test]
    fn json_has_every_member() {
        let text = "é: x\ny: [1,\n 2]\n";
        let issues = vec![
            Issue::new(Code::TIE, "m")
                .at(at(0, text, "x"))
                .label("l")
                .and(at(0, text, "[1,\n 2]"), "n")
                .note("o"),
            Issue::new(Code::UNUSED, "w"),
        ];
        let printed = print(issues, &sources(&[("f.yaml", text)]), Format::Json, "tail");
        let value: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            value,
            json!({ "errors": 1, "warnings": 1, "issues": [
                { "code": "TG1310", "level": "error", "message": "m", "file": "f.yaml", "line": 1, "column": 4, "end_line": 1,
                  "end_column": 5, "label": "l", "notes": ["o"], "related": [
                    { "file": "f.yaml", "line": 2, "column": 4, "end_line": 3, "end_column": 4, "note": "n" } ] },
                { "code": "TG2007", "level": "warning", "message": "w", "file": null, "line": null, "column": null,
                  "end_line": null, "end_column": null, "label": "", "notes": [], "related": [] },
            ] })
        );
    }

    #[test]
    fn sarif_refers_to_rules_and_regions() {
        let text = "a: b";
        let issues = vec![
            Issue::new(Code::UNUSED, "w"),
            Issue::new(Code::DUPLICATE_KEY, "d")
                .at(at(0, text, "b"))
                .label("again")
                .and(at(0, text, "a"), "first")
                .help("h"),
        ];
        let printed = print(issues, &sources(&[("/etc/toll gate/a:é.yaml", text)]), Format::Sarif, "");
        let value: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(value["version"], "2.1.0");
        let run = &value["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        for result in run["results"].as_array().unwrap() {
            assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], result["ruleId"]);
        }
        assert_eq!(rules[0]["shortDescription"]["text"], "A key stands twice in one map.");
        let result = &run["results"][1];
        assert_eq!(result["message"]["text"], "d\nhelp: h");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "file:///etc/toll%20gate/a%3A%C3%A9.yaml");
        assert_eq!(
            place["region"],
            json!({ "startLine": 1, "startColumn": 4, "endLine": 1, "endColumn": 5 })
        );
        assert_eq!(result["relatedLocations"][0]["message"]["text"], "first");
        assert_eq!(run["results"][0]["level"], "warning");
        assert_eq!(run["results"][0]["locations"], json!([]));
    }
}
