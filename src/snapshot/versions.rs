//! Versions are sugar: each version of an API becomes a set of routes of its own.

use super::deprecation::check_successors;
use crate::actions::to::To;
use crate::build::problem;
use crate::config::document::{Api, Version, VersionBy, Versions};
use crate::filters::Marker;
use crate::route::{HeaderTest, QueryTest, Test};
use crate::value::{At, Code, Issue, Issues, Name, PathPattern, Spanned};

/// One version of an API, or the whole of one that has none.
#[derive(Clone, Default)]
pub(super) struct Variant<'a> {
    /// Its name.
    pub name: Option<&'a Name>,
    /// What is written of it.
    pub version: Option<&'a Version>,
    /// Where requests name it.
    pub marker: Option<Marker>,
    /// Whether requests that name none get it.
    pub is_default: bool,
    /// Where its requests go when the route does not say.
    pub to: Option<&'a Spanned<To>>,
    /// Where it is written.
    pub at: At,
}

/// How one request may name a version: a path in front, or a condition.
#[derive(Clone, Default)]
pub(super) struct Way {
    /// In front of the base path.
    pub prefix: Option<PathPattern>,
    /// A further condition.
    pub header: Option<HeaderTest>,
    /// A further condition.
    pub query: Option<QueryTest>,
}

/// The variants of an API.
pub(super) fn variants<'a>(api: &'a Api, issues: &mut Issues) -> Vec<Variant<'a>> {
    let Some(versions) = &api.versions else {
        return vec![Variant { to: api.to.as_ref(), ..Variant::default() }];
    };
    check(versions, issues);
    check_successors(&versions.value, issues);
    let variant = |(name, version): (&'a Spanned<Name>, &'a Version)| {
        let marker = issues.take(marker(&versions.value.by, name))?;
        let to = version.to.as_ref().or(api.to.as_ref());
        Some(Variant {
            name: Some(&name.value),
            version: Some(version),
            marker: Some(marker),
            is_default: version.default,
            to,
            at: name.at,
        })
    };
    versions.value.versions.iter().filter_map(variant).collect()
}

fn check(versions: &Spanned<Versions>, issues: &mut Issues) {
    if versions.value.versions.iter().filter(|(_, version)| version.default).count() > 1 {
        issues.push(Issue::new(Code::CONFLICT, "two versions are the default").at(versions.at));
    }
    if versions.value.versions.is_empty() {
        let issue = Issue::new(Code::EMPTY, "`versions` names no version").at(versions.at);
        issues.push(issue.help("add for example `v1: {}`"));
    }
}

fn marker(by: &VersionBy, name: &Spanned<Name>) -> Result<Marker, Issue> {
    let pattern = match by {
        VersionBy::Header(key) => return Ok(Marker::Header(key.0.clone())),
        VersionBy::Query(key) => return Ok(Marker::Query(key.clone())),
        VersionBy::Path(pattern) => pattern,
    };
    let fits =
        pattern.split_once('{').zip(pattern.split_once('}')).is_some_and(|((before, _), (_, after))| {
            name.as_str()
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|middle| !middle.is_empty())
        });
    if !fits {
        let issue =
            Issue::new(Code::CONFLICT, format!("version `{}` does not fit `path: {pattern}`", name.value))
                .at(name.at);
        return Err(issue.help("`path: \"v{n}\"` is for versions named v1, v2, …"));
    }
    Ok(Marker::Path(format!("/{}", name.value)))
}

impl Variant<'_> {
    /// All ways in which a request may name this version.
    pub(super) fn ways(&self) -> Result<Vec<Way>, Issue> {
        let (Some(name), Some(marker)) = (self.name, &self.marker) else {
            return Ok(vec![Way::default()]);
        };
        let named = match marker {
            Marker::Path(prefix) => {
                let prefix =
                    prefix.parse().map_err(|message: String| problem(Code::BAD_PATH, &message, self.at))?;
                Way { prefix: Some(prefix), ..Way::default() }
            }
            Marker::Header(header) => Way {
                header: Some(HeaderTest { name: header.clone(), test: value_is(name) }),
                ..Way::default()
            },
            Marker::Query(query) => {
                Way { query: Some(QueryTest { name: query.clone(), test: value_is(name) }), ..Way::default() }
            }
        };
        let unnamed = match marker {
            Marker::Path(_) => Way::default(),
            Marker::Header(header) => Way {
                header: Some(HeaderTest { name: header.clone(), test: Test::Absent }),
                ..Way::default()
            },
            Marker::Query(query) => {
                Way { query: Some(QueryTest { name: query.clone(), test: Test::Absent }), ..Way::default() }
            }
        };
        Ok(if self.is_default { vec![named, unnamed] } else { vec![named] })
    }
}

/// The version's name; `v2` may also be written `2`.
fn value_is(name: &Name) -> Test {
    match name.as_str().strip_prefix('v') {
        Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Test::OneOf(vec![number.to_owned(), name.as_str().to_owned()])
        }
        _ => Test::Is(name.as_str().to_owned()),
    }
}
