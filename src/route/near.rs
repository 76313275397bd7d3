//! Why other rules did not get a request, for `tollgate explain`. Goes through all rules; not for the request path.

use super::conditions::Test;
use super::lookup::Lookup;
use super::methods::MethodKey;
use super::rule::{Rule, precedence};
use super::table::Table;
use crate::value::{HostPattern, PathPattern, Segment};
use http::Method;
use std::cmp::Reverse;
use std::fmt;

/// A rule that nearly got the request.
#[derive(Clone, Debug)]
pub struct Near<'t> {
    /// The rule.
    pub rule: &'t Rule,
    /// Why not, said of the request: "method is POST, not GET".
    pub reason: String,
}

impl Table {
    /// Up to `limit` other rules that the request came close to, the closest first, one for a route.
    pub fn near<'t>(&'t self, lookup: &Lookup<'_>, limit: usize) -> Vec<Near<'t>> {
        let winner = self.first_match(lookup).ok();
        let others =
            self.order().iter().filter(|rule| winner.is_none_or(|winner| winner.route != rule.route));
        let mut misses: Vec<_> =
            others.filter_map(|rule| Miss::find(rule, lookup, winner).map(|miss| (rule, miss))).collect();
        // Stable: what is equally close stays in order of precedence.
        misses.sort_by_key(|(_, miss)| miss.distance());
        let mut near: Vec<Near<'_>> = Vec::new();
        for (rule, miss) in misses {
            if near.len() == limit {
                break;
            }
            if near.iter().all(|other| other.rule.route != rule.route) {
                near.push(Near { rule, reason: miss.to_string() });
            }
        }
        near
    }
}

/// What kept a rule from the request.
enum Miss<'a> {
    /// Nothing but a rule before it.
    Outranked {
        by: &'a str,
    },
    Condition {
        kind: &'static str,
        name: &'a str,
        test: &'a Test,
    },
    Method {
        request: &'a Method,
        rule: String,
    },
    Listener,
    Path {
        pattern: &'a PathPattern,
        end: PathEnd<'a>,
        in_common: usize,
    },
    Host {
        rule: &'a HostPattern,
    },
    /// The path has no segment in common.
    OtherPath {
        pattern: &'a PathPattern,
        any_host: bool,
    },
}

/// Where a path leaves a pattern; segments count from 1.
enum PathEnd<'a> {
    Differs { at: usize, segment: &'a Segment },
    Short { at: usize, segment: &'a Segment },
    Long,
    Slash,
}

impl<'a> Miss<'a> {
    /// `None` where neither host nor path are close.
    fn find(rule: &'a Rule, lookup: &Lookup<'a>, winner: Option<&Rule>) -> Option<Miss<'a>> {
        let path = path_end(&rule.path, lookup.path);
        if !rule.host.matches(lookup.host) {
            return path.is_none().then_some(Miss::Host { rule: &rule.host });
        }
        if let Some((end, in_common)) = path {
            let pattern = &rule.path;
            return Some(match in_common {
                0 => Miss::OtherPath { pattern, any_host: rule.host == HostPattern::Any },
                _ => Miss::Path { pattern, end, in_common },
            });
        }
        if !rule.hears(lookup.listener) {
            return Some(Miss::Listener);
        }
        if let Some(methods) = rule.methods.as_ref().filter(|methods| !methods.answers(lookup.method)) {
            return Some(Miss::Method { request: lookup.method, rule: methods.to_string() });
        }
        let header = rule.headers.iter().find(|test| !test.passes(lookup.headers));
        let header = header.map(|failed| ("header", failed.name.as_str(), &failed.test));
        let query = rule.query.iter().find(|test| !test.passes(lookup.query));
        let failed = header.or(query.map(|failed| ("query", failed.name.as_str(), &failed.test)));
        Some(match failed {
            Some((kind, name, test)) => Miss::Condition { kind, name, test },
            None => Miss::Outranked { by: deciding_part(rule, winner?, lookup.method) },
        })
    }

    /// Smaller is closer.
    fn distance(&self) -> (u8, Reverse<usize>) {
        let (kind, in_common) = match self {
            Miss::Outranked { .. } => (0, 0),
            Miss::Condition { .. } => (1, 0),
            Miss::Method { .. } => (2, 0),
            Miss::Listener => (3, 0),
            Miss::Path { in_common, .. } => (4, *in_common),
            Miss::Host { .. } => (5, 0),
            Miss::OtherPath { .. } => (6, 0),
        };
        (kind, Reverse(in_common))
    }
}

fn deciding_part(rule: &Rule, winner: &Rule, method: &Method) -> &'static str {
    let method = MethodKey::new(method);
    match precedence(winner, rule) {
        Some((_, part)) if part != super::rule::Part::Conditions => part.name(),
        _ if method.is_head() && winner.states(method) != rule.states(method) => {
            super::rule::Part::Methods.name()
        }
        Some((_, part)) => part.name(),
        None => "its text, since all else is equal",
    }
}

/// Where the path leaves the pattern and how many literal segments agree before; `None` where it matches.
fn path_end<'a>(pattern: &'a PathPattern, path: &str) -> Option<(PathEnd<'a>, usize)> {
    let mut rest = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut in_common = 0;
    for (at, segment) in (1..).zip(pattern.segments()) {
        let last = at == pattern.segments().len();
        let end = match rest.next() {
            Some(text) if segment.matches(text) => {
                in_common += usize::from(!segment.is_param());
                continue;
            }
            Some("") | None if last && segment.literal() == Some("") => PathEnd::Slash,
            Some("") | None => PathEnd::Short { at, segment },
            Some(_) => PathEnd::Differs { at, segment },
        };
        return Some((end, in_common));
    }
    let left: Option<&str> = rest.next();
    match left {
        Some("") if pattern.tail().is_none() && rest.next().is_none() => Some((PathEnd::Slash, in_common)),
        Some(_) if pattern.tail().is_none() => Some((PathEnd::Long, in_common)),
        _ => None,
    }
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Outranked { by } => write!(f, "matches too, but comes later by {by}"),
            Miss::Condition { kind, name, test } => {
                write!(f, "{kind} `{name}` ")?;
                match test {
                    Test::Is(text) => write!(f, "is not `{text}`"),
                    Test::OneOf(texts) => write!(f, "is not `{}`", texts.join("` or `")),
                    Test::Present => f.write_str("absent"),
                    Test::Absent => f.write_str("present"),
                    Test::Matches(regex) => write!(f, "does not match `{regex}`"),
                }
            }
            Miss::Method { request, rule } => write!(f, "method is {request}, not {rule}"),
            Miss::Listener => f.write_str("comes through another listener"),
            Miss::Path { pattern, end, .. } => match end {
                PathEnd::Differs { at, segment } => write!(f, "path differs at segment {at} (`{segment}`)"),
                PathEnd::Short { at, segment } => write!(f, "path ends before segment {at} (`{segment}`)"),
                PathEnd::Long => write!(f, "path goes on behind {pattern}"),
                PathEnd::Slash => write!(f, "path differs from {pattern} by the final slash"),
            },
            Miss::Host { rule } => write!(f, "path matches, host {rule} does not"),
            Miss::OtherPath { pattern, any_host: true } => write!(f, "path {pattern} does not match"),
            Miss::OtherPath { pattern, any_host: false } => {
                write!(f, "host matches, path {pattern} does not")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::methods::Methods;
    use super::super::table::tests::{Request, rule};
    use super::*;

    #[track_caller]
    fn reason(near: &str, request: &Request) -> String {
        let mut other = rule(near);
        other.route = 1;
        let table = Table::new(vec![rule("example.com/orders/{id}"), other]);
        table.near(&request.lookup(), 5).first().map(|near| near.reason.clone()).unwrap_or_default()
    }

    #[test]
    fn reasons_in_words() {
        let request = Request::new("GET", "example.com", "/orders/7");
        for (near, words) in [
            ("example.com/orders/dashboard", "path differs at segment 2 (`dashboard`)"),
            ("example.com/orders/{id}/lines", "path ends before segment 3 (`lines`)"),
            ("example.com/orders/7/{line}", "path ends before segment 3 (`{line}`)"),
            ("example.com/orders", "path goes on behind /orders"),
            ("example.com/orders/{id}/", "path differs from /orders/{id}/ by the final slash"),
            ("example.com/v1/catalog/**", "host matches, path /v1/catalog/** does not"),
            ("*/v1/catalog/**", "path /v1/catalog/** does not match"),
            ("POST example.com/orders/{id}", "method is GET, not POST"),
            ("other.com/orders/{id}", "path matches, host other.com does not"),
            ("example.com/orders/**", "matches too, but comes later by path"),
            ("*/orders/{id}", "matches too, but comes later by host"),
            ("other.com/other", ""),
        ] {
            assert_eq!(reason(near, &request), words, "{near}");
        }
    }

    #[test]
    fn conditions_and_listeners_in_words() {
        let request = Request::new("GET", "example.com", "/x");
        let reason = |change: &dyn Fn(&mut Rule)| {
            let mut rule = rule("*/x");
            change(&mut rule);
            Table::new(vec![rule]).near(&request.lookup(), 1).remove(0).reason
        };
        let header = |test: Test| super::super::conditions::HeaderTest { name: http::header::ACCEPT, test };
        assert_eq!(reason(&|rule| rule.headers.push(header(Test::Present))), "header `accept` absent");
        assert_eq!(
            reason(&|rule| rule.headers.push(header(Test::Is("a".into())))),
            "header `accept` is not `a`"
        );
        assert_eq!(reason(&|rule| rule.listeners = Some(vec![7])), "comes through another listener");
        assert_eq!(
            reason(&|rule| rule.methods = Methods::parse(["PUT", "POST"]).ok()),
            "method is GET, not POST, PUT"
        );
    }

    #[test]
    fn closest_first_one_per_route() {
        let texts =
            ["example.com/b", "POST example.com/a", "example.com/a/x", "example.com/a", "other.com/a"];
        let rules =
            texts.iter().zip([1, 2, 3, 4, 2]).map(|(text, route)| Rule { route, ..rule(text) }).collect();
        let table = Table::new(rules);
        let request = Request::new("GET", "example.com", "/a");
        let routes = |limit| {
            table.near(&request.lookup(), limit).iter().map(|near| near.rule.route).collect::<Vec<_>>()
        };
        assert_eq!(routes(9), [2, 3, 1]);
        assert_eq!(routes(1), [2]);
    }
}
