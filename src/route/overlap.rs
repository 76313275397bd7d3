//! Rules that get into each other's way: ties, and rules that can never be reached.

use super::conditions::Test;
use super::rule::Rule;
use super::trie::{NodeId, Trie};
use crate::value::{HostPattern, PathPattern, Segment, parent_domain};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Two rules that cannot stand side by side; numbers are indexes into the rules given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conflict {
    /// Some request matches both, and neither comes first.
    Tie {
        /// The one given first.
        a: usize,
        /// The other.
        b: usize,
    },
    /// All requests of `rule` go to `by`. Each such rule is named once, with the first rule that covers it.
    Unreachable {
        /// The one in the shadow.
        rule: usize,
        /// The one before it.
        by: usize,
    },
}

/// Finds all ties and all rules that one other rule covers. That several rules cover one together is not found.
///
/// Within one priority a rule with fewer requests always comes before one that covers it, so only a higher `priority` can
/// make a rule unreachable.
pub fn conflicts(rules: &[Rule]) -> Vec<Conflict> {
    let mut conflicts = ties(rules);
    conflicts.extend(unreachable(rules));
    conflicts
}

fn ties(rules: &[Rule]) -> Vec<Conflict> {
    let mut groups: HashMap<_, Vec<(usize, &Rule)>> = HashMap::new();
    for (at, rule) in rules.iter().enumerate() {
        // Paths of equal precedence have a path in common only if they have the same shape; so it is with hosts.
        let key = (rule.priority, &rule.host, rule.path.shape(), rule.methods.is_some(), rule.conditions());
        groups.entry(key).or_default().push((at, rule));
    }
    let mut ties = Vec::new();
    for group in groups.into_values() {
        ties_of_group(group, &mut ties);
    }
    ties.sort_unstable();
    ties
}

/// Compares all pairs, but for those that a header or query value keeps apart: a thousand tenants told apart by one header
/// must not cost a million comparisons.
fn ties_of_group(group: Vec<(usize, &Rule)>, ties: &mut Vec<Conflict>) {
    let Some(name) = most_tested(&group) else { return ties_of_pairs(&group, &[], ties) };
    let mut by_value: HashMap<&str, Vec<(usize, &Rule)>> = HashMap::new();
    let mut others = Vec::new();
    for member in group {
        match member.1.exact_value(name) {
            Some(value) => by_value.entry(value).or_default().push(member),
            None => others.push(member),
        }
    }
    for same_value in by_value.values() {
        ties_of_pairs(same_value, &others, ties);
    }
    ties_of_pairs(&others, &[], ties);
}

/// All pairs within `group`, and all of one of it and one of `others`.
fn ties_of_pairs(group: &[(usize, &Rule)], others: &[(usize, &Rule)], ties: &mut Vec<Conflict>) {
    for (at, (a, one)) in group.iter().enumerate() {
        for (b, other) in group.iter().skip(at + 1).chain(others) {
            if one.may_share_request(other) {
                ties.push(Conflict::Tie { a: *a.min(b), b: *a.max(b) });
            }
        }
    }
}

/// What a condition looks at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source<'a> {
    Header(&'a str),
    Query(&'a str),
}

/// The name that most rules test for an exact value, if any does.
fn most_tested<'a>(group: &[(usize, &'a Rule)]) -> Option<Source<'a>> {
    let mut counts: BTreeMap<Source<'a>, usize> = BTreeMap::new();
    for (_, rule) in group {
        for (source, _) in rule.tests().filter(|(_, test)| matches!(test, Test::Is(_))) {
            *counts.entry(source).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source)
}

impl Rule {
    fn tests(&self) -> impl Iterator<Item = (Source<'_>, &Test)> {
        let headers = self.headers.iter().map(|test| (Source::Header(test.name.as_str()), &test.test));
        headers.chain(self.query.iter().map(|test| (Source::Query(&test.name), &test.test)))
    }

    fn exact_value(&self, name: Source<'_>) -> Option<&str> {
        self.tests().find_map(|(source, test)| match test {
            Test::Is(value) if source == name => Some(value.as_str()),
            _ => None,
        })
    }

    /// Whether methods, listeners and conditions let one request match both; host and path are taken as equal.
    fn may_share_request(&self, other: &Rule) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (Some(ours), Some(theirs)) => ours.overlaps(theirs),
            _ => true,
        };
        let listeners = match (&self.listeners, &other.listeners) {
            (Some(ours), Some(theirs)) => ours.iter().any(|listener| theirs.contains(listener)),
            _ => true,
        };
        let excluded = |(source, test): (Source<'_>, &Test)| {
            other
                .tests()
                .any(|(their_source, their_test)| source == their_source && test.excludes(their_test))
        };
        methods && listeners && !self.tests().any(excluded)
    }

    /// Whether every request that `other` matches is matched by this rule.
    fn covers(&self, other: &Rule) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => ours.covers(theirs),
            (Some(_), None) => false,
        };
        let listeners = match (&self.listeners, &other.listeners) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => theirs.iter().all(|listener| ours.contains(listener)),
            (Some(_), None) => false,
        };
        methods
            && listeners
            && self.host.covers(&other.host)
            && self.path.covers(&other.path)
            && self.headers.iter().all(|test| other.headers.contains(test))
            && self.query.iter().all(|test| other.query.contains(test))
    }
}

fn unreachable(rules: &[Rule]) -> Vec<Conflict> {
    let highest = rules.iter().map(|rule| rule.priority).max();
    let in_shadow = |rule: &Rule| highest.is_some_and(|highest| rule.priority < highest);
    if !rules.iter().any(in_shadow) {
        return Vec::new();
    }
    let covers = Covers::new(rules);
    let lower = rules.iter().enumerate().filter(|(_, rule)| in_shadow(rule));
    lower.filter_map(|(at, rule)| Some(Conflict::Unreachable { rule: at, by: covers.of(rule)? })).collect()
}

/// All rules by host and path, to find those that cover another without looking at every one.
struct Covers<'a> {
    rules: &'a [Rule],
    trie: Trie,
    roots: HashMap<&'a HostPattern, NodeId>,
}

impl<'a> Covers<'a> {
    fn new(rules: &'a [Rule]) -> Self {
        let mut covers = Covers { rules, trie: Trie::default(), roots: HashMap::new() };
        // Highest priority first, so that a search may stop at the first rule that does not come before.
        let mut numbered: Vec<(u32, &Rule)> = (0..).zip(rules).collect();
        numbered.sort_by_key(|(_, rule)| Reverse(rule.priority));
        for (number, rule) in numbered {
            let root = *covers.roots.entry(&rule.host).or_insert_with(|| covers.trie.add_node());
            covers.trie.insert(root, &rule.path, number);
        }
        covers
    }

    /// The first rule of higher priority that covers this one.
    fn of(&self, rule: &Rule) -> Option<usize> {
        let mut best = None;
        for root in covering_hosts(&rule.host).iter().filter_map(|host| self.roots.get(host)) {
            self.visit(*root, &rule.path, rule.path.segments(), &mut |numbers| {
                let found = self.first_cover(numbers, rule);
                best = best
                    .into_iter()
                    .chain(found)
                    .max_by_key(|at| self.rules.get(*at).map(|rule| (rule.priority, Reverse(*at))));
            });
        }
        best
    }

    fn first_cover(&self, numbers: &[u32], rule: &Rule) -> Option<usize> {
        let candidates =
            numbers.iter().filter_map(|number| Some((*number as usize, self.rules.get(*number as usize)?)));
        let mut before = candidates.take_while(|(_, candidate)| candidate.priority > rule.priority);
        before.find(|(_, candidate)| candidate.covers(rule)).map(|(at, _)| at)
    }

    /// Visits every place whose patterns may cover `path`; `rest` are the segments still to go.
    fn visit(&self, id: NodeId, path: &PathPattern, rest: &[Segment], visitor: &mut impl FnMut(&[u32])) {
        let Some(node) = self.trie.node(id) else { return };
        visitor(&node.tails);
        let Some((segment, rest)) = rest.split_first() else {
            return if path.tail().is_none() {
                visitor(&node.exact)
            };
        };
        if let Some(child) = segment.literal().and_then(|text| self.trie.literal(id, text)) {
            self.visit(child, path, rest, visitor);
        }
        if let Some(child) = self.trie.param(id) {
            self.visit(child, path, rest, visitor);
        }
    }
}

/// Every host pattern that covers this one.
fn covering_hosts(host: &HostPattern) -> Vec<HostPattern> {
    let wildcard = match host {
        HostPattern::Exact(name) => parent_domain(name).map(|parent| HostPattern::Wildcard(parent.into())),
        _ => None,
    };
    let any = (*host != HostPattern::Any).then_some(HostPattern::Any);
    [Some(host.clone()), wildcard, any].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{HeaderTest, QueryTest};
    use super::super::rule::precedence;
    use super::super::table::tests::{rule, rules};
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn with(text: &str, change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = rule(text);
        change(&mut rule);
        rule
    }

    fn header(name: &'static str, test: Test) -> HeaderTest {
        HeaderTest { name: http::HeaderName::from_static(name), test }
    }

    fn is(value: &str) -> Test {
        Test::Is(value.to_owned())
    }

    #[test]
    fn ties() {
        let tie = vec![Conflict::Tie { a: 0, b: 1 }];
        for (a, b, expected) in [
            ("*/a/{x}", "*/a/{y}", &tie),
            ("GET */a", "GET */a", &tie),
            ("GET,POST */a", "GET */a", &tie),
            ("*/a/**", "*/a/{rest...}", &tie),
            ("GET */a", "HEAD */a", &vec![]),
            ("GET */a", "POST */a", &vec![]),
            ("GET */a", "*/a", &vec![]),
            ("*/a", "*/a/", &vec![]),
            ("*/a/{x}/c", "*/{y}/b/c", &vec![]),
            ("a.com/a", "*/a", &vec![]),
            ("a.com/a", "b.com/a", &vec![]),
        ] {
            assert_eq!(conflicts(&[rule(a), rule(b)]), *expected, "{a} and {b}");
        }
    }

    #[test]
    fn conditions_and_listeners_keep_apart() {
        let one_header = |test: Test| with("*/a", |rule| rule.headers.push(header("x-a", test)));
        let other_header = with("*/a", |rule| rule.headers.push(header("x-b", is("1"))));
        let query = with("*/a", |rule| rule.query.push(QueryTest { name: "x-a".into(), test: is("2") }));
        let on = |listener| with("*/a", |rule| rule.listeners = Some(vec![listener]));
        let ties = |a: &Rule, b: &Rule| !conflicts(&[a.clone(), b.clone()]).is_empty();
        assert!(!ties(&one_header(is("1")), &one_header(is("2"))));
        assert!(!ties(&one_header(Test::Present), &one_header(Test::Absent)));
        assert!(!ties(&one_header(is("1")), &rule("*/a")));
        assert!(ties(&one_header(is("1")), &one_header(is("1"))));
        assert!(ties(&one_header(is("1")), &one_header(Test::Present)));
        assert!(ties(&one_header(is("1")), &other_header));
        assert!(ties(&one_header(is("1")), &query));
        assert!(!ties(&on(1), &on(2)));
        assert!(ties(&on(1), &on(1)));
        assert!(ties(&on(1), &rule("*/a")));
    }

    #[test]
    fn shadows() {
        for (high, low, covered) in [
            ("*/**", "GET a.com/x/{y}", true),
            ("*/x/**", "*/x", true),
            ("*/x/{y}", "*/x/1", true),
            ("*/x/{y}", "*/x/{z}", true),
            ("*.com/x", "a.com/x", true),
            ("GET */x", "HEAD */x", true),
            ("GET,POST */x", "POST */x", true),
            ("*/x/{y}", "*/x/", false),
            ("*/x/1", "*/x/{y}", false),
            ("a.com/**", "*/x", false),
            ("*.com/x", "a.b.com/x", false),
            ("GET */x", "*/x", false),
            ("GET */x", "GET,PUT */x", false),
        ] {
            let high = with(high, |rule| rule.priority = 1);
            let expected = if covered { vec![Conflict::Unreachable { rule: 0, by: 1 }] } else { vec![] };
            assert_eq!(conflicts(&[rule(low), high.clone()]), expected, "{high} before {low}");
        }
    }

    #[test]
    fn a_condition_covers_only_the_same() {
        let high = with("*/x", |rule| {
            rule.priority = 1;
            rule.headers.push(header("x-a", is("1")));
        });
        let same = with("*/x", |rule| rule.headers = vec![header("x-b", is("1")), header("x-a", is("1"))]);
        assert_eq!(conflicts(&[high.clone(), rule("*/x")]), []);
        assert_eq!(conflicts(&[high, same]), [Conflict::Unreachable { rule: 1, by: 0 }]);
    }

    #[test]
    fn ten_thousand_rules_are_quick() {
        let shape = |at: usize| {
            with(&format!("*/a{}/{{x}}/b{at}", at % 7), |rule| {
                rule.priority = i32::from(at.is_multiple_of(9))
            })
        };
        let tenant =
            |at: usize| with("*/t", |rule| rule.headers.push(header("x-tenant", is(&at.to_string()))));
        for rules in [(0..10_000).map(shape).collect::<Vec<_>>(), (0..10_000).map(tenant).collect()] {
            let start = Instant::now();
            assert_eq!(conflicts(&rules), []);
            // Comparing all pairs takes minutes in this build.
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        }
    }

    /// All pairs, by the definition.
    fn naive(rules: &[Rule]) -> Vec<Conflict> {
        let mut found = Vec::new();
        for (a, one) in rules.iter().enumerate() {
            for (b, other) in rules.iter().enumerate().skip(a + 1) {
                let same_place = one.host == other.host && one.path.same_shape(&other.path);
                if same_place && precedence(one, other).is_none() && one.may_share_request(other) {
                    found.push(Conflict::Tie { a, b });
                }
            }
        }
        for (at, rule) in rules.iter().enumerate() {
            let covering = rules
                .iter()
                .enumerate()
                .filter(|(_, other)| other.priority > rule.priority && other.covers(rule));
            if let Some((by, _)) = covering.max_by_key(|(by, other)| (other.priority, Reverse(*by))) {
                found.push(Conflict::Unreachable { rule: at, by });
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn agrees_with_comparing_all_pairs(rules in rules(20)) {
            prop_assert_eq!(conflicts(&rules), naive(&rules));
        }
    }
}
