//! Reading the configuration: the main file, what it includes, and what its values refer to. All file I/O is here.

use super::de;
use super::document::Document;
use super::interpolate::{Environment, interpolate};
use super::secrets::{in_order, put_back};
use super::yaml::{Entry, Kind, MAX_BYTES, Node, parse};
use crate::value::issue::Source;
use crate::value::{At, ByteSize, Code, Issue, Issues, Sources};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A configuration as read: typed, and the texts it came from.
pub struct Loaded {
    /// What was written.
    pub document: Document,
    /// Whether all of it could be read; what is wrong is missing from `document`.
    pub whole: bool,
    /// The merged tree, for showing it again.
    pub tree: Node,
    /// The directory relative paths begin at.
    pub base: PathBuf,
    /// Values from outside and how they are written, for [`Loaded::mask`].
    secrets: Vec<(String, String)>,
    /// Hash of all texts, 12 hexadecimal digits: the same text has the same hash on every node.
    pub hash: String,
}

impl Loaded {
    /// The text with every value from outside (`${env:…}`, `${file:…}`, `${cred:…}`) put back to how it is written.
    pub fn mask(&self, text: &str) -> String {
        put_back(text, &self.secrets)
    }
}

/// What came from outside. Of values shorter than four characters nothing is hidden: they would be found everywhere.
fn secrets(node: &Node) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![node];
    while let Some(node) = left.pop() {
        match &node.kind {
            Kind::Seq(items) => left.extend(items),
            Kind::Map(entries) => left.extend(entries.iter().map(|entry| &entry.value)),
            Kind::Scalar(scalar) if scalar.secret => {
                if let (Some(value), Some(written)) = (scalar.value.as_str(), &scalar.written) {
                    found.extend(pieces(value, written));
                }
            }
            Kind::Scalar(_) | Kind::Refused => {}
        }
    }
    found = in_order(found, 3);
    found.dedup();
    found
}

/// What each `${env:…}` and the like of a text became: the values, each with how it is written.
fn pieces(value: &str, written: &str) -> Vec<(String, String)> {
    let begin =
        |text: &str| ["${env:", "${file:", "${cred:"].iter().filter_map(|source| text.find(source)).min();
    let mut pieces = Vec::new();
    let (mut value, mut written) = (value, written);
    while let Some((literal, rest)) = begin(written).and_then(|at| written.split_at_checked(at)) {
        let Some((reference, behind)) = rest.split_once('}') else { break };
        let Some(from) = value.strip_prefix(literal) else { break };
        // The value ends where the text behind the reference goes on.
        let next = behind.get(..begin(behind).unwrap_or(behind.len())).unwrap_or_default();
        let end = if next.is_empty() { from.len() } else { from.find(next).unwrap_or(from.len()) };
        let (piece, left) = from.split_at_checked(end).unwrap_or((from, ""));
        pieces.push((piece.to_owned(), format!("{reference}}}")));
        (value, written) = (left, behind);
    }
    pieces
}

/// Sections whose entries are merged by name when files are included.
const MERGED: &[&str] = &["listeners", "auth", "plans", "consumers", "upstreams", "apis"];

/// Reads a configuration. What is found goes to `issues`, the texts to `sources`; the result is there when it can be used
/// at all.
pub fn load(path: &Path, sources: &mut Sources, issues: &mut Issues) -> Option<Loaded> {
    let tree = read(path, sources, issues)?;
    complete(path, tree, sources, issues)
}

/// As [`load`], of a `text` as if the file said it.
pub fn load_text(path: &Path, text: &str, sources: &mut Sources, issues: &mut Issues) -> Option<Loaded> {
    let tree = add(path, text, sources, issues)?;
    complete(path, tree, sources, issues)
}

fn complete(path: &Path, mut tree: Node, sources: &mut Sources, issues: &mut Issues) -> Option<Loaded> {
    let base =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    check_version(&tree, issues)?;
    include(&mut tree, &base, sources, issues);
    interpolate(&mut tree, &Environment::process(&base), issues);
    let (document, whole) = de::read_what_can_be::<Document>(&tree, issues)?;
    Some(Loaded { secrets: secrets(&tree), document, tree, base, hash: hash(sources), whole })
}

fn read(path: &Path, sources: &mut Sources, issues: &mut Issues) -> Option<Node> {
    let unreadable =
        |why: String| Issue::new(Code::UNREADABLE, format!("`{}` cannot be read: {why}", path.display()));
    let mut bytes = Vec::new();
    let result =
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = result {
        issues.push(unreadable(error.to_string()));
        return None;
    }
    if bytes.len() > MAX_BYTES {
        let issue = Issue::new(
            Code::TOO_MUCH,
            format!("`{}` is larger than {}", path.display(), ByteSize(MAX_BYTES as u64)),
        );
        issues.push(issue.help("split it with `include`"));
        return None;
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            issues.push(unreadable(format!("it is not UTF-8 (byte {})", error.utf8_error().valid_up_to())));
            return None;
        }
    };
    add(path, &text, sources, issues)
}

fn add(path: &Path, text: &str, sources: &mut Sources, issues: &mut Issues) -> Option<Node> {
    // Some editors begin every file with a byte order mark; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = u16::try_from(sources.0.len()).ok().filter(|file| *file < u16::MAX)?;
    sources.0.push(Source { name: path.display().to_string(), text: text.into() });
    parse(file, text, issues)
}

/// The version is looked at first: another version's file would give findings that mislead.
fn check_version(tree: &Node, issues: &mut Issues) -> Option<()> {
    let Kind::Map(_) = &tree.kind else { return Some(()) };
    let missing = || {
        Issue::new(Code::VERSION, "`version` is missing").at(tree.at).help("begin the file with `version: 1`")
    };
    match tree.value("version") {
        None => issues.push(missing()),
        Some(Node { kind: Kind::Scalar(scalar), .. }) if scalar.value == 1 => return Some(()),
        Some(other) => {
            let issue = Issue::new(Code::VERSION, "this version of the format is not known").at(other.at);
            issues.push(issue.help("this binary reads `version: 1`"));
        }
    }
    None
}

fn include(tree: &mut Node, base: &Path, sources: &mut Sources, issues: &mut Issues) {
    for (pattern, at) in patterns(tree) {
        let mut paths: Vec<PathBuf> = match glob::glob(&base.join(&pattern).to_string_lossy()) {
            Ok(paths) => paths.filter_map(Result::ok).filter(|path| path.is_file()).collect(),
            Err(error) => {
                issues.push(
                    Issue::new(Code::INCLUDE, format!("`{pattern}` is not a pattern: {}", error.msg)).at(at),
                );
                continue;
            }
        };
        paths.sort();
        if paths.is_empty() {
            issues.push(match pattern.contains(['*', '?', '[']) {
                true => Issue::new(Code::INCLUDE_EMPTY, format!("`{pattern}` matches no file")).at(at),
                false => Issue::new(Code::INCLUDE, format!("there is no file `{pattern}`")).at(at),
            });
        }
        for path in paths {
            if let Some(part) = read(&path, sources, issues) {
                merge(tree, part, issues);
            }
        }
    }
}

/// The include patterns; whatever else stands there is reported when the document is typed.
fn patterns(tree: &Node) -> Vec<(String, At)> {
    let text = |node: &Node| match &node.kind {
        Kind::Scalar(scalar) => scalar.value.as_str().map(|text| (text.to_owned(), node.at)),
        _ => None,
    };
    match tree.value("include") {
        None => Vec::new(),
        Some(Node { kind: Kind::Seq(items), .. }) => items.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
    }
}

fn merge(tree: &mut Node, part: Node, issues: &mut Issues) {
    let at = part.at;
    let (Kind::Map(into), Kind::Map(entries)) = (&mut tree.kind, part.kind) else {
        issues.push(Issue::new(Code::WRONG_TYPE, "an included file must be a map").at(at));
        return;
    };
    for entry in entries {
        let existing = into.iter_mut().find(|existing| existing.key.value == entry.key.value);
        match (entry.key.value.as_str(), existing) {
            ("version", _) => {}
            ("include", _) => {
                let issue =
                    Issue::new(Code::INCLUDE, "an included file cannot include others").at(entry.key.at);
                issues.push(issue.help("list every file in the main file"));
            }
            (_, None) => into.push(entry),
            (key, Some(existing)) if MERGED.contains(&key) => merge_by_name(existing, entry, issues),
            (_, Some(existing)) => issues.push(twice(existing, &entry)),
        }
    }
}

fn merge_by_name(existing: &mut Entry, entry: Entry, issues: &mut Issues) {
    let (Kind::Map(into), Kind::Map(named)) = (&mut existing.value.kind, entry.value.kind) else {
        let issue = Issue::new(Code::WRONG_TYPE, format!("`{}` must be a map", entry.key.value));
        issues.push(issue.at(entry.key.at));
        return;
    };
    // Within one file no name stands twice.
    let known: HashMap<&str, &Entry> = into.iter().map(|one| (one.key.value.as_str(), one)).collect();
    let mut new = Vec::with_capacity(named.len());
    for one in named {
        match known.get(one.key.value.as_str()) {
            Some(first) => issues.push(twice(first, &one)),
            None => new.push(one),
        }
    }
    into.extend(new);
}

fn twice(first: &Entry, again: &Entry) -> Issue {
    Issue::new(Code::DEFINED_TWICE, format!("`{}` is defined in two files", again.key.value))
        .at(first.key.at)
        .label("first")
        .and(again.key.at, "again")
}

/// FNV-1a (64 bit) over names and texts.
fn hash(sources: &Sources) -> String {
    let bytes = sources.0.iter().flat_map(|source| source.text.bytes().chain([0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_the_text_around_them() {
        let found = |value, written| {
            pieces(value, written)
                .into_iter()
                .map(|(piece, from)| format!("{piece}={from}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("Bearer abc", "Bearer ${env:A}"), ["abc=${env:A}"]);
        assert_eq!(
            found("x-b/c-${path.id}", "x-${env:A}/${file:B}-${path.id}"),
            ["b=${env:A}", "c=${file:B}"]
        );
        assert_eq!(found("ab", "${env:A}${env:B}"), ["ab=${env:A}", "=${env:B}"]);
        assert_eq!(found("plain", "plain"), Vec::<String>::new());
    }
}
