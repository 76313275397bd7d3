//! Values from outside: `${env:NAME}`, `${env:NAME:-default}`, `${file:/path}`, `${cred:name}`.
//!
//! Replaced after parsing and in values only, so that nothing that comes from outside can change the structure of the
//! document. Every other `${…}` is a template for request time and stays as it is; `$${env:` is the text `${env:`.

use super::yaml::{Kind, Node, Scalar};
use crate::value::{At, Code, Issue, Issues};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes a `${file:…}` or `${cred:…}` may bring.
const MAX_BYTES: u64 = 1 << 20;

/// Where values come from: variables, files, and the credentials systemd hands to a service.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `None` for those of the process.
    variables: Option<HashMap<String, String>>,
    base: PathBuf,
    credentials: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process; relative paths begin at `base`.
    ///
    /// Credentials lie in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), `LoadCredential=`).
    pub fn process(base: &Path) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Environment { variables: None, base: base.to_owned(), credentials }
    }

    /// Only the given variables; `CREDENTIALS_DIRECTORY` among them names the credentials.
    pub fn fixed(base: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables: HashMap<_, _> = variables.into_iter().collect();
        let credentials = variables.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Environment { variables: Some(variables), base: base.to_owned(), credentials }
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        match &self.variables {
            Some(variables) => variables.get(name).map(OsString::from),
            None => std::env::var_os(name),
        }
    }

    /// The value of one reference, such as `env:HOME`.
    fn value(&self, source: Source, name: &str) -> Result<String, Issue> {
        match source {
            Source::Env => self.env(name),
            Source::File => self.file(name),
            Source::Cred => self.credential(name),
        }
    }

    fn env(&self, reference: &str) -> Result<String, Issue> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let issue =
                Issue::new(Code::BAD_INTERPOLATION, format!("`{name}` is not the name of a variable"));
            return Err(issue.help("write `${env:NAME}` or `${env:NAME:-default}`"));
        }
        let missing = |what| Issue::new(Code::ENV_MISSING, format!("environment variable `{name}` {what}"));
        match (self.variable(name).map(OsString::into_string), default) {
            (Some(Ok(value)), Some(default)) if value.is_empty() => Ok(default.to_owned()),
            (Some(Ok(value)), _) => Ok(value),
            (Some(Err(_)), _) => Err(missing("is not UTF-8")),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                Err(missing("is not set")
                    .help(format!("set it, or give a default: `${{env:{name}:-default}}`")))
            }
        }
    }

    fn file(&self, name: &str) -> Result<String, Issue> {
        if name.is_empty() {
            return Err(Issue::new(Code::BAD_INTERPOLATION, "`${file:}` names no file"));
        }
        let missing =
            |error| Issue::new(Code::FILE_MISSING, format!("file `{name}` cannot be read: {error}"));
        contents(&self.base.join(name)).map_err(missing)
    }

    fn credential(&self, name: &str) -> Result<String, Issue> {
        if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
            let issue =
                Issue::new(Code::BAD_INTERPOLATION, format!("`{name}` is not the name of a credential"));
            return Err(issue.help("write the name without a path: `${cred:name}`"));
        }
        let missing = |why: String| {
            Issue::new(Code::CRED_MISSING, format!("credential `{name}` cannot be read: {why}"))
        };
        let Some(directory) = &self.credentials else {
            let issue = missing("`$CREDENTIALS_DIRECTORY` is not set".to_owned());
            return Err(issue.help(format!("give it to the service with `LoadCredential={name}:/path`")));
        };
        contents(&directory.join(name)).map_err(|error| missing(error.to_string()))
    }
}

/// A small text file without the line break at its end.
fn contents(path: &Path) -> io::Result<String> {
    // A pipe or device could make the start hang.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[derive(Clone, Copy)]
enum Source {
    Env,
    File,
    Cred,
}

const OPENINGS: [(&str, Source); 3] =
    [("${env:", Source::Env), ("${file:", Source::File), ("${cred:", Source::Cred)];

/// Replaces the references in every text of the tree.
///
/// What was replaced is marked secret and remembers what was written. What cannot be replaced is reported and refused.
pub fn interpolate(node: &mut Node, environment: &Environment, issues: &mut Issues) {
    let at = node.at;
    match &mut node.kind {
        Kind::Refused => {}
        Kind::Seq(items) => items.iter_mut().for_each(|item| interpolate(item, environment, issues)),
        Kind::Map(entries) => {
            entries.iter_mut().for_each(|entry| interpolate(&mut entry.value, environment, issues));
        }
        Kind::Scalar(scalar) => {
            let before = issues.0.len();
            replace(scalar, at, environment, issues);
            if issues.0.len() > before {
                node.kind = Kind::Refused;
            }
        }
    }
}

fn replace(scalar: &mut Scalar, at: At, environment: &Environment, issues: &mut Issues) {
    let Some(text) = scalar.value.as_str() else { return };
    if opening(text).is_none() {
        return;
    }
    let mut result = String::with_capacity(text.len());
    let mut secret = false;
    let pieces = Pieces { text, offset: 0 };
    for piece in pieces {
        match piece {
            Piece::Text(literal) => result.push_str(literal),
            Piece::Reference { source, name, from, to } => {
                secret = true;
                let value = environment.value(source, name);
                result.extend(issues.take(value.map_err(|issue| issue.at(within(text, at, from, to)))));
            }
            Piece::Unclosed { from } => {
                let issue = Issue::new(Code::BAD_INTERPOLATION, "this `${` is not closed");
                issues.push(issue.at(within(text, at, from, text.len())).help("close it with `}`"));
            }
        }
    }
    scalar.written = Some(text.to_owned());
    scalar.secret = secret;
    scalar.value = result.into();
}

/// The place of bytes `from..to` of a scalar's text; the whole scalar if escapes or line breaks moved them.
fn within(text: &str, at: At, from: usize, to: usize) -> At {
    let quotes = match (at.end as usize).checked_sub(at.start as usize + text.len()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return at,
    };
    let offset =
        |byte: usize| at.start.saturating_add(quotes).saturating_add(u32::try_from(byte).unwrap_or(0));
    At { start: offset(from), end: offset(to), ..at }
}

/// A text cut at its references.
struct Pieces<'t> {
    text: &'t str,
    offset: usize,
}

enum Piece<'t> {
    Text(&'t str),
    Reference { source: Source, name: &'t str, from: usize, to: usize },
    Unclosed { from: usize },
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let from = self.offset;
        let rest = self.text.get(from..).filter(|rest| !rest.is_empty())?;
        let Some((begin, opening, source)) = opening(rest) else {
            return Some(self.text_to(from, self.text.len()));
        };
        let (before, reference) = rest.split_at_checked(begin)?;
        if let Some(before) = before.strip_suffix('$') {
            // `$${env:` is text, in templates too: it keeps both dollars, which the template takes for one.
            return Some(if before.is_empty() {
                self.text_to(from, from + 1 + opening)
            } else {
                self.text_to(from, from + before.len())
            });
        }
        if !before.is_empty() {
            return Some(self.text_to(from, from + begin));
        }
        Some(match reference.get(opening..).and_then(|inside| inside.split_once('}')) {
            Some((name, _)) => {
                self.offset = from + opening + name.len() + 1;
                Piece::Reference { source, name, from, to: self.offset }
            }
            None => {
                self.offset = self.text.len();
                Piece::Unclosed { from }
            }
        })
    }
}

/// The first opening of a reference: where, how long, which.
fn opening(text: &str) -> Option<(usize, usize, Source)> {
    text.match_indices("${").find_map(|(begin, _)| {
        let rest = text.get(begin..)?;
        let (opening, source) = OPENINGS.iter().find(|(opening, _)| rest.starts_with(opening))?;
        Some((begin, opening.len(), *source))
    })
}

impl<'t> Pieces<'t> {
    fn text_to(&mut self, from: usize, to: usize) -> Piece<'t> {
        self.offset = to;
        Piece::Text(self.text.get(from..to).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn environment(base: &Path) -> Environment {
        let variables =
            [("HOST", "example.com"), ("EMPTY", ""), ("PORT", "8080"), ("TRICKY", "a: [b] ${env:HOST}")];
        let credentials = base.join("creds").display().to_string();
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Environment::fixed(
            base,
            variables.into_iter().chain([("CREDENTIALS_DIRECTORY".to_owned(), credentials)]),
        )
    }

    fn run(text: &str) -> (Node, Issues) {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("creds")).unwrap();
        std::fs::write(base.path().join("creds/token"), "s3cret\n").unwrap();
        std::fs::write(base.path().join("crlf"), "one\r\ntwo\r\n").unwrap();
        std::fs::write(base.path().join("large"), "x".repeat((1 << 20) + 1)).unwrap();
        std::fs::write(base.path().join("full"), "x".repeat(1 << 20)).unwrap();
        std::fs::write(base.path().join("binary"), [0xff, 0xfe]).unwrap();
        let mut issues = Issues::default();
        let mut node = yaml::parse(0, text, &mut issues).unwrap();
        interpolate(&mut node, &environment(base.path()), &mut issues);
        (node, issues)
    }

    fn scalar(text: &str) -> Scalar {
        let (node, issues) = run(&format!("k: {text}"));
        assert_eq!(issues.0, [], "{text}");
        match &node.value("k").unwrap().kind {
            Kind::Scalar(scalar) => scalar.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn references_are_replaced_and_marked() {
        for (text, value) in [
            ("${env:HOST}", "example.com"),
            ("http://${env:HOST}:${env:PORT}/x", "http://example.com:8080/x"),
            ("\"${env:NOPE:-fall: back}\"", "fall: back"),
            ("${env:NOPE:-}", ""),
            ("${env:EMPTY}", ""),
            ("${env:EMPTY:-d}", "d"),
            ("${env:PORT:-d}", "8080"),
            ("${cred:token}", "s3cret"),
            ("${file:crlf}", "one\r\ntwo"),
            ("${file:creds/token}", "s3cret"),
            ("${env:TRICKY}", "a: [b] ${env:HOST}"),
            ("é${env:HOST}é", "éexample.comé"),
        ] {
            let scalar = scalar(text);
            assert_eq!(scalar.value.as_str(), Some(value), "{text}");
            assert!(scalar.secret && scalar.written.is_some(), "{text}");
        }
        assert_eq!(scalar("${file:full}").value.as_str().map(str::len), Some(1 << 20));
        assert_eq!(scalar("${env:PORT}").written.as_deref(), Some("${env:PORT}"));
    }

    #[test]
    fn templates_and_escapes_stay() {
        for (text, value) in [
            ("${path.id}", "${path.id}"),
            ("$${path.id}", "$${path.id}"),
            ("a $${env:HOST} b", "a $${env:HOST} b"),
            ("$$${env:HOST}", "$$${env:HOST}"),
            ("$${env:HOST}${path.x}", "$${env:HOST}${path.x}"),
            ("$", "$"),
        ] {
            let scalar = scalar(text);
            assert_eq!((scalar.value.as_str(), scalar.secret), (Some(value), false), "{text}");
        }
        let mixed = scalar("${path.id}-${env:PORT}-$${cred:x}");
        assert_eq!((mixed.value.as_str(), mixed.secret), (Some("${path.id}-8080-$${cred:x}"), true));
    }

    #[test]
    fn keys_are_left_alone() {
        let (node, issues) = run("\"${env:NOPE}\": 1");
        assert!(issues.0.is_empty() && node.value("${env:NOPE}").is_some());
    }

    #[test]
    fn what_is_missing_is_reported_at_its_place() {
        let text =
            "a: x${env:NOPE}y\nb: \"é${file:none}\"\nc: ['${cred:none}', \"\\t${env:NOPE}\"]\nd: ${env:OPEN";
        let (node, issues) = run(text);
        let found: Vec<_> = issues
            .0
            .iter()
            .map(|issue| (issue.code, &text[issue.at.start as usize..issue.at.end as usize]))
            .collect();
        assert_eq!(
            found,
            [
                (Code::ENV_MISSING, "${env:NOPE}"),
                (Code::FILE_MISSING, "${file:none}"),
                (Code::CRED_MISSING, "${cred:none}"),
                (Code::ENV_MISSING, "\"\\t${env:NOPE}\""),
                (Code::BAD_INTERPOLATION, "${env:OPEN"),
            ]
        );
        assert_eq!(node.value("a").unwrap().kind, Kind::Refused);
    }

    #[test]
    fn sources_are_bounded_and_names_are_names() {
        for (text, code, part) in [
            ("${file:large}", Code::FILE_MISSING, "larger than 1 MiB"),
            ("${file:creds}", Code::FILE_MISSING, "not a regular file"),
            ("${file:binary}", Code::FILE_MISSING, "UTF-8"),
            ("${file:}", Code::BAD_INTERPOLATION, "names no file"),
            ("${cred:../token}", Code::BAD_INTERPOLATION, "not the name of a credential"),
            ("${cred:..}", Code::BAD_INTERPOLATION, "not the name of a credential"),
            ("${cred:}", Code::BAD_INTERPOLATION, "not the name of a credential"),
            ("${env:}", Code::BAD_INTERPOLATION, "not the name of a variable"),
            ("${env:A-B}", Code::BAD_INTERPOLATION, "not the name of a variable"),
        ] {
            let (_, issues) = run(&format!("k: {text}"));
            assert_eq!(issues.0.len(), 1, "{text}");
            assert_eq!(issues.0[0].code, code, "{text}");
            assert!(issues.0[0].message.contains(part), "{text}: {}", issues.0[0].message);
        }
    }

    #[test]
    fn without_a_credentials_directory_the_help_says_so() {
        let mut issues = Issues::default();
        let mut node = yaml::parse(0, "k: ${cred:t}", &mut issues).unwrap();
        interpolate(&mut node, &Environment::fixed(Path::new("/"), []), &mut issues);
        assert_eq!(issues.0[0].notes, ["help: give it to the service with `LoadCredential=t:/path`"]);
    }
}
