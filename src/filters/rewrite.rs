//! `rewrite`: path, query, method and host of the upstream request (TX-02, TX-03, TX-04).

use super::rules::{PathRule, QueryRules};
use super::{Filter, Hooks, Made, Settings};
use crate::build::{Value, problem};
use crate::exchange::{Exchange, RequestHead, set_target};
use crate::reply::{Kind, Problem};
use crate::value::query::{is_named, split_pair};
use crate::value::{Code, Issue, Issues, Normalize, Part, Spanned, Template, normalize};
use http::Method;
use http::header::HOST;
use regex::Regex;
use std::borrow::Cow;

pub(super) const NAME: &str = "rewrite";

struct Rewrite {
    path: Option<Path>,
    query: Option<Query>,
    method: Option<Method>,
    host: Option<Value>,
}

enum Path {
    Strip(String),
    Replace(Template),
    Regex(Regex, String),
}

/// What replaces and adds is kept as templates; names are compared as they are written.
struct Query {
    allow: Option<Vec<String>>,
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    set: Vec<(String, Template)>,
    add: Vec<(String, Template)>,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rules = &settings.request.value;
    let path = rules.path.as_ref().and_then(|rule| issues.take(make_path(rule, settings)));
    let query = rules.query.as_ref().map(|rules| make_query(rules, settings, issues));
    let host = rules.host.as_ref().and_then(|host| issues.take(settings.bind.value(host)));
    let method = rules.method.as_ref().map(|method| method.0.clone());
    if method == Some(Method::HEAD) {
        let issue =
            Issue::new(Code::CONFLICT, "a request cannot be made a HEAD: its answer would lose its body");
        issues.push(issue.at(settings.request.at));
    }
    if path.is_none() && query.is_none() && method.is_none() && host.is_none() {
        return None;
    }
    Some(Made::new(Rewrite { path, query, method, host }, Hooks::UPSTREAM_REQUEST, settings.request.at))
}

fn make_path(rule: &Spanned<PathRule>, settings: &Settings<'_>) -> Result<Path, Issue> {
    let bad = |message: String| problem(Code::BAD_PATH, &message, rule.at);
    match &rule.value {
        PathRule::Strip(prefix) if prefix.starts_with('/') && !prefix.ends_with('/') => {
            Ok(Path::Strip(prefix.clone()))
        }
        PathRule::Strip(prefix) => Err(bad(format!(
            "`{prefix}` cannot be stripped\nhelp: a prefix begins with `/` and does not end with one"
        ))),
        PathRule::Replace(template) => {
            let bound = settings.bind.template(&Spanned { value: template.clone(), at: rule.at })?;
            match bound.parts().first() {
                Some(Part::Text(text)) if text.starts_with('/') => Ok(Path::Replace(bound)),
                _ => Err(bad(format!("the new path `{template}` does not begin with `/`"))),
            }
        }
        PathRule::Regex(regex) => {
            let find = Regex::new(&regex.find)
                .map_err(|error| bad(format!("`{}` is not a regular expression: {error}", regex.find)))?;
            Ok(Path::Regex(find, regex.replace.clone()))
        }
    }
}

fn make_query(rules: &QueryRules, settings: &Settings<'_>, issues: &mut Issues) -> Query {
    let mut templates = |map: &crate::value::Map<Spanned<Template>, String>| -> Vec<(String, Template)> {
        map.iter()
            .filter_map(|(key, template)| {
                Some((key.value.clone(), issues.take(settings.bind.template(template))?))
            })
            .collect()
    };
    Query {
        set: templates(&rules.set),
        add: templates(&rules.add),
        allow: rules.allow.clone(),
        remove: rules.remove.clone(),
        rename: rules.rename.iter().map(|(from, to)| (from.value.clone(), to.clone())).collect(),
    }
}

impl Filter for Rewrite {
    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        request: &RequestHead,
        x: &Exchange,
    ) -> Result<(), Problem> {
        if self.path.is_some() || self.query.is_some() {
            let target = self.target(head, request, x)?;
            set_target(head, &target)
                .map_err(|_| Problem::from(Kind::BAD_PATH).detail("The rewritten path is not valid."))?;
        }
        if let Some(method) = &self.method {
            head.method = method.clone();
        }
        if let Some(host) = self.host.as_ref().and_then(|host| host.for_request(request, x)) {
            head.headers.insert(HOST, host);
        }
        Ok(())
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        let mut words = Vec::new();
        words.extend(self.method.as_ref().map(ToString::to_string));
        if self.path.is_some() || self.query.is_some() {
            words.push(self.target(request, request, x).unwrap_or_else(|_| "refuse (400)".to_owned()));
        }
        words.extend(
            self.host
                .as_ref()
                .and_then(|host| host.for_request(request, x))
                .and_then(|host| host.to_str().ok().map(|host| format!("host {host}"))),
        );
        words.join("  ")
    }
}

impl Rewrite {
    /// The new target: `head` is what earlier steps left, `request` what templates read.
    ///
    /// # Errors
    /// The rewritten path is none: a client can make a template or an expression build anything.
    fn target(&self, head: &RequestHead, request: &RequestHead, x: &Exchange) -> Result<String, Problem> {
        let path = head.uri.path();
        let rewritten = self.path.as_ref().map_or(Cow::Borrowed(path), |rule| rule.apply(path, request, x));
        let (path, added) = split_query(&rewritten);
        // What clients put in must not lead out of where the rule points: `..` is resolved here, not upstream.
        let path = if self.path.is_some() {
            let normal = normalize(path, Normalize::Lenient);
            normal.map_err(|error| Problem::from(Kind::BAD_PATH).detail(error.to_string()))?
        } else {
            Cow::Borrowed(path)
        };
        let mut target = path.into_owned();
        let query = head.uri.query().unwrap_or_default();
        let query =
            self.query.as_ref().map_or(Cow::Borrowed(query), |rules| rules.apply(query, request, x).into());
        for query in [added, &query].into_iter().filter(|query| !query.is_empty()) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        Ok(target)
    }
}

fn split_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

impl Path {
    fn apply<'a>(&self, path: &'a str, request: &RequestHead, x: &Exchange) -> Cow<'a, str> {
        match self {
            Path::Strip(prefix) => match path.strip_prefix(prefix.as_str()) {
                Some("") => Cow::Borrowed("/"),
                Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
                _ => Cow::Borrowed(path),
            },
            Path::Replace(template) => {
                let mut replaced = String::with_capacity(path.len() + 32);
                // A path parameter stood in a path; anything else may hold `/`, `?` or `#`.
                x.render_escaped(template, request, &mut replaced, |part, text, out| match part {
                    Part::Path(..) => out.push_str(text),
                    _ => push_segment(out, text),
                });
                Cow::Owned(replaced)
            }
            Path::Regex(find, replace) => match find.replace(path, replace.as_str()) {
                slashed if slashed.starts_with('/') => slashed,
                bare => Cow::Owned(format!("/{bare}")),
            },
        }
    }
}

impl Query {
    fn apply(&self, query: &str, request: &RequestHead, x: &Exchange) -> String {
        let mut out = String::with_capacity(query.len() + 32);
        let mut first = true;
        let mut unset: Vec<&(String, Template)> = self.set.iter().collect();
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let name = split_pair(pair).0;
            let Some(new_name) = self.keep(name) else { continue };
            if let Some((set, template)) = self.set.iter().find(|(set, _)| is_named(new_name, set)) {
                // The first takes the new value where it stands; the others go.
                if let Some(number) = unset.iter().position(|(name, _)| name == set) {
                    unset.remove(number);
                    push_filled(&mut out, &mut first, set, template, request, x);
                }
                continue;
            }
            push_separator(&mut out, &mut first);
            out.push_str(new_name);
            out.push_str(pair.get(name.len()..).unwrap_or_default());
        }
        for (name, template) in unset.into_iter().chain(&self.add) {
            push_filled(&mut out, &mut first, name, template, request, x);
        }
        out
    }

    /// The name under which a parameter goes on, if it does.
    fn keep<'n>(&'n self, name: &'n str) -> Option<&'n str> {
        let is = |other: &String| is_named(name, other);
        if self.allow.as_ref().is_some_and(|allow| !allow.iter().any(is)) || self.remove.iter().any(is) {
            return None;
        }
        Some(self.rename.iter().find(|(from, _)| is(from)).map_or(name, |(_, to)| to.as_str()))
    }
}

fn push_separator(out: &mut String, first: &mut bool) {
    if !std::mem::take(first) {
        out.push('&');
    }
}

fn push_filled(
    out: &mut String,
    first: &mut bool,
    name: &str,
    template: &Template,
    request: &RequestHead,
    x: &Exchange,
) {
    let mut value = String::new();
    x.render(template, request, &mut value);
    push_separator(out, first);
    push_encoded(out, name);
    out.push('=');
    push_encoded(out, &value);
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3): the text becomes part of one segment.
fn push_segment(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Percent-encodes what cannot stand in a query (RFC 3986 section 3.4); escapes that are there stay.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'%'
            | b'!'
            | b'$'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b':'
            | b'@'
            | b'/'
            | b'?'
            | b'['
            | b']' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}
