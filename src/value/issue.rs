//! Findings about a configuration: what is wrong, where it stands, and what would mend it.
//!
//! An [`Issue`] knows its place as an [`At`]: a range of bytes in one of the [`Sources`] that were read. Only printing
//! turns that into line and column.

use std::fmt;
use std::sync::Arc;

/// A place in the configuration: bytes `start..end` of source number `file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    /// Index into [`Sources`].
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl At {
    /// For what was written by nobody: built-in defaults.
    pub const NOWHERE: At = At { file: u16::MAX, start: 0, end: 0 };

    /// Whether this names a place in a file.
    pub fn is_somewhere(self) -> bool {
        self.file != u16::MAX
    }
}

impl Default for At {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The configuration can run, but probably not as meant.
    Warning,
    /// The configuration is refused.
    Error,
}

/// A stable code such as `TG1203`. Codes are never reused; 1xxx are errors, 2xxx warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    /// Errors are numbered below 2000.
    pub fn level(self) -> Level {
        if self.0 < 2000 { Level::Error } else { Level::Warning }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TG{:04}", self.0)
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal;)*) => {
        impl Code { $($(#[doc = $doc])* pub const $name: Code = Code($number);)* }
        /// Every code with its meaning, for the reference page.
        pub const CODES: &[(Code, &str)] = &[$((Code($number), concat!($($doc),*))),*];
    };
}

codes! {
    /// A file cannot be read.
    UNREADABLE = 1001;
    /// The text is not YAML.
    SYNTAX = 1002;
    /// A file is too large, too deep or expands to too much.
    TOO_MUCH = 1003;
    /// YAML that tollgate does not accept: tags, merge keys, several documents, `yes`/`no`, octal numbers.
    SUBSET = 1004;
    /// A key stands twice in one map.
    DUPLICATE_KEY = 1005;
    /// `version` is missing or not one this binary reads.
    VERSION = 1006;
    /// An `include` pattern is wrong or matches nothing.
    INCLUDE = 1007;
    /// A name is defined in two files.
    DEFINED_TWICE = 1008;
    /// The two YAML parsers understand the text differently.
    PARSERS_DISAGREE = 1009;
    /// An environment variable named by `${env:…}` is not set.
    ENV_MISSING = 1101;
    /// A file named by `${file:…}` cannot be read.
    FILE_MISSING = 1102;
    /// A credential named by `${cred:…}` cannot be read.
    CRED_MISSING = 1103;
    /// A `${…}` is not closed, or names no known source.
    BAD_INTERPOLATION = 1104;
    /// A value has the wrong type.
    WRONG_TYPE = 1201;
    /// A required key is missing.
    MISSING_KEY = 1202;
    /// A key that does not exist here.
    UNKNOWN_KEY = 1203;
    /// A value cannot be understood: unit, format, word.
    BAD_VALUE = 1204;
    /// Braces that YAML reads as a map where text was meant.
    QUOTE_THIS = 1205;
    /// A name refers to nothing.
    UNKNOWN_REFERENCE = 1301;
    /// Two listeners bind the same address.
    ADDRESS_TWICE = 1302;
    /// A route inherits no `auth`; `public` must be written.
    NO_AUTH = 1303;
    /// A route has no `to`.
    NO_ACTION = 1304;
    /// A path pattern cannot be understood.
    BAD_PATH = 1305;
    /// A template names something that does not exist here.
    BAD_TEMPLATE = 1306;
    /// A certificate, key or CA bundle cannot be used.
    BAD_TLS = 1307;
    /// A combination of options that cannot work.
    CONFLICT = 1308;
    /// The admin address is reachable from outside but has no token.
    ADMIN_OPEN = 1309;
    /// Two routes match the same requests with the same precedence.
    TIE = 1310;
    /// A route can never be reached.
    UNREACHABLE = 1311;
    /// Nothing is configured where at least one is needed.
    EMPTY = 1312;
    /// A route knows who calls, and its cache does not say who may get an answer.
    CACHE_UNSHARED = 1320;
    /// A definition is never used.
    UNUSED = 2007;
    /// Upstream certificates are not verified.
    UNVERIFIED = 2008;
    /// A target cannot be reached (`check --online`).
    UNREACHED = 2010;
    /// A key or certificate is no longer good, or not yet.
    EXPIRED = 2011;
    /// Secrets travel in clear text to another machine.
    CLEAR_TEXT = 2012;
    /// With `mode: fast` more may pass than the limit says: how many.
    FAST_BOUND = 2013;
    /// A setting has no effect here.
    NO_EFFECT = 2014;
    /// A value that can hardly be meant.
    UNLIKELY = 2015;
    /// An include pattern matches no file.
    INCLUDE_EMPTY = 2009;
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Stable code; its number decides error or warning.
    pub code: Code,
    /// One line, lower case, names in backticks.
    pub message: String,
    /// Where.
    pub at: At,
    /// Text behind the caret, such as "did you mean `burst`?". May be empty.
    pub label: String,
    /// Further places, each with a note. When present, places are listed and no snippet is shown.
    pub also: Vec<(At, String)>,
    /// Lines printed after `= `, such as `help: …` or `allowed here: …`.
    pub notes: Vec<String>,
    /// Whether the text at the place is left out of reports, because it may hold a secret.
    pub unshown: bool,
}

impl Issue {
    /// A finding with no place, label or help yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Issue {
            code,
            message: message.into(),
            at: At::NOWHERE,
            label: String::new(),
            also: Vec::new(),
            notes: Vec::new(),
            unshown: false,
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// Sets the text behind the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a second place with its note; `first` becomes the note of the main place.
    #[must_use]
    pub fn and(mut self, at: At, note: impl Into<String>) -> Self {
        self.also.push((at, note.into()));
        self
    }

    /// Adds a `= help: …` line.
    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.notes.push(format!("help: {help}"));
        self
    }

    /// Adds a `= …` line.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Leaves the text at the place out of reports: it may hold a secret.
    #[must_use]
    pub fn unshown(mut self) -> Self {
        self.unshown = true;
        self
    }

    /// Whether this refuses the configuration.
    pub fn is_error(&self) -> bool {
        self.code.level() == Level::Error
    }
}

/// Collected findings; reading and building go on after the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issues(pub Vec<Issue>);

impl Issues {
    /// Adds one.
    pub fn push(&mut self, issue: Issue) {
        self.0.push(issue);
    }

    /// Keeps the value, or the finding.
    pub fn take<T>(&mut self, result: Result<T, Issue>) -> Option<T> {
        result.map_err(|issue| self.push(issue)).ok()
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|issue| issue.is_error()).count()
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }

    /// Orders by file and position, so that the report reads like the file; findings without a place come last.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|issue| (issue.at.file, issue.at.start, issue.code));
        self.0.dedup();
    }
}

/// One text that was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path as the operator would write it.
    pub name: String,
    /// The whole text.
    pub text: Arc<str>,
}

/// All texts that were read; [`At::file`] indexes it.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<Source>);

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Sources {
    /// The source an [`At`] points into.
    pub fn source(&self, at: At) -> Option<&Source> {
        self.0.get(usize::from(at.file))
    }

    /// Line and column of the first byte.
    pub fn line_column(&self, at: At) -> Option<LineColumn> {
        let before = self.source(at)?.text.get(..at.start as usize)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(LineColumn {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.get(line_start..)?.chars().count() + 1,
        })
    }

    /// `file:line:column`, or `None` for built-in values.
    pub fn place(&self, at: At) -> Option<String> {
        let LineColumn { line, column } = self.line_column(at)?;
        Some(format!("{}:{line}:{column}", self.source(at)?.name))
    }

    /// `file:line`, or `(default)` for built-in values.
    pub fn line(&self, at: At) -> String {
        match (self.source(at), self.line_column(at)) {
            (Some(source), Some(position)) => format!("{}:{}", source.name, position.line),
            _ => "(default)".to_owned(),
        }
    }
}
