//! The route table: which rule a request meets first, in time that does not depend on the number of rules.
//!
//! Rules are grouped by priority and host; within a group the segments of the path lead through a tree to the few rules
//! whose path matches, in the order of [`Part`](super::Part). Nothing is allocated on the way.

use super::lookup::Lookup;
use super::methods::{MethodKey, Methods};
use super::rule::{Rule, total_order};
use super::trie::{NodeId, Trie};
use crate::value::{HostPattern, Params, parent_domain, split_segment};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::cmp::Reverse;

/// All rules, ready to be looked up.
#[derive(Debug)]
pub struct Table {
    /// In order of precedence; the tree holds indexes into it.
    rules: Vec<Rule>,
    trie: Trie,
    /// One for each priority in use, the highest first.
    levels: Vec<Level>,
}

/// The rules of one priority by host, each host with its root in the tree.
#[derive(Debug, Default)]
struct Level {
    exact: HashMap<Box<str>, NodeId, FixedState>,
    /// By the suffix without `*.`.
    wildcard: HashMap<Box<str>, NodeId, FixedState>,
    any: Option<NodeId>,
}

/// The answer of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The route, and what its path captured.
    Route {
        /// [`Rule::route`] of the rule that comes first.
        route: u32,
        /// Captures in the order of its pattern.
        params: Params,
    },
    /// Rules match in all but the method; these are the methods they answer (RFC 9110 section 15.5.6).
    MethodNotAllowed(Methods),
    /// No rule matches.
    Nothing,
}

impl Table {
    /// Compiles rules. Their order does not matter.
    pub fn new(mut rules: Vec<Rule>) -> Table {
        rules.sort_by(total_order);
        let mut table = Table { rules: Vec::new(), trie: Trie::default(), levels: Vec::new() };
        let mut priority = None;
        for (number, rule) in (0..).zip(&rules) {
            if priority != Some(rule.priority) {
                priority = Some(rule.priority);
                table.levels.push(Level::default());
            }
            if let Some(level) = table.levels.last_mut() {
                let root = level.root(&rule.host, &mut table.trie);
                table.trie.insert(root, &rule.path, number);
            }
        }
        table.rules = rules;
        table
    }

    /// The route of a request: of all rules that match, the one that comes first.
    pub fn find(&self, lookup: &Lookup<'_>) -> Found {
        match self.first_match(lookup) {
            Ok(rule) => Found::Route { route: rule.route, params: rule.path.captures(lookup.path) },
            Err(allowed) if allowed.is_empty() => Found::Nothing,
            Err(allowed) => Found::MethodNotAllowed(allowed),
        }
    }

    /// The rule of a request, or the methods of all rules that match in all but the method.
    pub(super) fn first_match(&self, lookup: &Lookup<'_>) -> Result<&Rule, Methods> {
        let path = lookup.path.strip_prefix('/').ok_or_else(Methods::default)?;
        let mut walk = Walk {
            table: self,
            lookup,
            method: MethodKey::new(lookup.method),
            tails: SmallVec::new(),
            allowed: Methods::default(),
        };
        for root in self.levels.iter().flat_map(|level| level.roots(lookup.host)) {
            if let Some(rule) = walk.exact(root, Some(path), 0).or_else(|| walk.tail()) {
                return Ok(rule);
            }
        }
        Err(walk.allowed)
    }

    /// All rules in order of precedence.
    pub fn order(&self) -> &[Rule] {
        &self.rules
    }
}

impl Level {
    fn root(&mut self, host: &HostPattern, trie: &mut Trie) -> NodeId {
        match host {
            HostPattern::Exact(name) => *self.exact.entry(name.clone()).or_insert_with(|| trie.add_node()),
            HostPattern::Wildcard(suffix) => {
                *self.wildcard.entry(suffix.clone()).or_insert_with(|| trie.add_node())
            }
            HostPattern::Any => *self.any.get_or_insert_with(|| trie.add_node()),
        }
    }

    /// The roots of all rules for a host, in order of precedence.
    fn roots(&self, host: Option<&str>) -> impl Iterator<Item = NodeId> {
        let exact = host.filter(|_| !self.exact.is_empty()).and_then(|host| self.exact.get(host));
        let parent = host.filter(|_| !self.wildcard.is_empty()).and_then(parent_domain);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        [exact.copied(), wildcard.copied(), self.any].into_iter().flatten()
    }
}

/// One look-up under way.
struct Walk<'t, 'r> {
    table: &'t Table,
    lookup: &'r Lookup<'r>,
    method: MethodKey<'r>,
    /// Places passed where a tail begins, with their depth.
    tails: SmallVec<[(u32, NodeId); 8]>,
    /// Methods of rules that match in all but the method. Complete only when no rule matches.
    allowed: Methods,
}

impl<'t> Walk<'t, '_> {
    /// Goes down the tree, literal before parameter; as deep as the patterns are, at most.
    ///
    /// `rest` is what follows the last slash passed, `None` behind the last segment.
    fn exact(&mut self, id: NodeId, rest: Option<&str>, depth: u32) -> Option<&'t Rule> {
        let trie = &self.table.trie;
        let node = trie.node(id)?;
        if !node.tails.is_empty() {
            self.tails.push((depth, id));
        }
        let Some(rest) = rest else { return self.first(&node.exact) };
        let (segment, rest) = split_segment(rest);
        let literal = trie.literal(id, segment).and_then(|child| self.exact(child, rest, depth + 1));
        if literal.is_some() || segment.is_empty() {
            return literal;
        }
        trie.param(id).and_then(|child| self.exact(child, rest, depth + 1))
    }

    /// The rules with a tail that were passed on the way, the deepest first.
    fn tail(&mut self) -> Option<&'t Rule> {
        let mut tails = std::mem::take(&mut self.tails);
        // Stable: places of one depth stay in the order in which they were passed, literal before parameter.
        tails.sort_by_key(|(depth, _)| Reverse(*depth));
        let table = self.table;
        tails.into_iter().filter_map(|(_, id)| table.trie.node(id)).find_map(|node| self.first(&node.tails))
    }

    /// The first rule of one place that matches.
    fn first(&mut self, numbers: &'t [u32]) -> Option<&'t Rule> {
        let stated_head =
            self.method.is_head().then(|| self.rules(numbers).find(|rule| self.matches_head(rule)));
        stated_head.flatten().or_else(|| self.rules(numbers).find(|rule| self.matches(rule)))
    }

    fn rules(&self, numbers: &'t [u32]) -> impl Iterator<Item = &'t Rule> + use<'t> {
        let rules = &self.table.rules;
        numbers.iter().filter_map(|number| rules.get(*number as usize))
    }

    /// Where HEAD itself is stated, that comes before a GET that stands in for it.
    fn matches_head(&self, rule: &Rule) -> bool {
        rule.states(self.method) && rule.admits(self.lookup)
    }

    fn matches(&mut self, rule: &Rule) -> bool {
        let answers = rule.answers(self.method);
        let admits = rule.admits(self.lookup);
        if let Some(methods) = rule.methods.as_ref().filter(|_| admits && !answers) {
            self.allowed.extend(methods);
        }
        answers && admits
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::conditions::{HeaderTest, QueryTest, Test};
    use super::*;
    use crate::value::{PathPattern, Segment};
    use http::{HeaderMap, Method};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    /// A request that owns its parts.
    #[derive(Clone, Debug)]
    pub(in super::super) struct Request {
        host: Option<String>,
        path: String,
        query: Option<String>,
        method: Method,
        headers: HeaderMap,
        listener: u16,
    }

    impl Request {
        pub(in super::super) fn new(method: &str, host: &str, path: &str) -> Self {
            Request {
                host: Some(host.to_owned()),
                path: path.to_owned(),
                query: None,
                method: method.parse().unwrap(),
                headers: HeaderMap::new(),
                listener: 0,
            }
        }

        pub(in super::super) fn lookup(&self) -> Lookup<'_> {
            Lookup {
                host: self.host.as_deref(),
                path: &self.path,
                query: self.query.as_deref(),
                method: &self.method,
                headers: &self.headers,
                listener: self.listener,
            }
        }
    }

    /// A rule from text such as `GET,POST *.example.com/a/{id}`; the host `*` is any.
    pub(in super::super) fn rule(text: &str) -> Rule {
        let (methods, place) = match text.split_once(' ') {
            Some((methods, place)) => (Some(Methods::parse(methods.split(',')).unwrap()), place),
            None => (None, text),
        };
        let (host, path) = place.split_at(place.find('/').unwrap());
        let host = if host == "*" { HostPattern::Any } else { host.parse().unwrap() };
        let (headers, query) = (Vec::new(), Vec::new());
        Rule {
            host,
            path: path.parse().unwrap(),
            methods,
            headers,
            query,
            listeners: None,
            priority: 0,
            route: 0,
        }
    }

    fn table(texts: &[&str]) -> Table {
        Table::new(texts.iter().zip(0..).map(|(text, route)| Rule { route, ..rule(text) }).collect())
    }

    /// The text of the rule found and what it captured, `405 …` or `404`.
    fn found(texts: &[&str], method: &str, host: &str, path: &str) -> String {
        match table(texts).find(&Request::new(method, host, path).lookup()) {
            Found::Route { route, params } => {
                let values: Vec<&str> = params.values(path).collect();
                format!("{} [{}]", texts[route as usize], values.join("|"))
            }
            Found::MethodNotAllowed(methods) => format!("405 {}", methods.allow()),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn paths_are_matched_by_segment() {
        let texts = ["*/", "*/api/**", "*/a/{x}", "*/a/{x}/", "*/f/{y}/{rest...}"];
        for (path, expected) in [
            ("/", "*/ []"),
            ("/api", "*/api/** []"),
            ("/api/", "*/api/** []"),
            ("/api/x/y", "*/api/** [x/y]"),
            ("/api/x/", "*/api/** [x/]"),
            ("/apix", "404"),
            ("/a", "404"),
            ("/a/", "404"),
            ("/a/1", "*/a/{x} [1]"),
            ("/a/1/", "*/a/{x}/ [1]"),
            ("/a/1/2", "404"),
            ("/f", "404"),
            ("/f/", "404"),
            ("/f/1", "*/f/{y}/{rest...} [1|]"),
            ("/f/1/", "*/f/{y}/{rest...} [1|]"),
            ("/f/1/2/3", "*/f/{y}/{rest...} [1|2/3]"),
            ("*", "404"),
            ("", "404"),
        ] {
            assert_eq!(found(&texts, "GET", "h", path), expected, "{path}");
        }
        assert_eq!(found(&["*/**"], "GET", "h", "/"), "*/** []");
        assert_eq!(found(&["*/**"], "GET", "h", "/a/b"), "*/** [a/b]");
    }

    #[test]
    fn precedence_of_paths() {
        let texts = ["*/**", "*/a/**", "*/{x}/b/**", "*/a/{y}/c", "*/{x}/b/c", "*/a/b/c", "*/a/{y}/**"];
        for (path, expected) in [
            ("/a/b/c", "*/a/b/c []"),
            ("/a/z/c", "*/a/{y}/c [z]"),
            ("/z/b/c", "*/{x}/b/c [z]"),
            ("/a/b/d", "*/a/{y}/** [b|d]"),
            ("/z/b/d", "*/{x}/b/** [z|d]"),
            ("/a", "*/a/** []"),
            ("/z/z", "*/** [z/z]"),
        ] {
            assert_eq!(found(&texts, "GET", "h", path), expected, "{path}");
        }
    }

    #[test]
    fn hosts_fall_through() {
        let texts = ["a.x.com/1", "*.x.com/{p}", "*/**", "*.x.com/1"];
        for (host, path, expected) in [
            ("a.x.com", "/1", "a.x.com/1 []"),
            ("a.x.com", "/2", "*.x.com/{p} [2]"),
            ("b.x.com", "/1", "*.x.com/1 []"),
            ("a.x.com", "/2/3", "*/** [2/3]"),
            ("x.com", "/1", "*/** [1]"),
            ("a.b.x.com", "/1", "*/** [1]"),
        ] {
            assert_eq!(found(&texts, "GET", host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn methods() {
        let texts =
            ["GET */a", "POST,PURGE a.com/a", "HEAD */b", "GET */b", "*/c", "GET */c", "GET */d", "*/**"];
        for (method, path, expected) in [
            ("HEAD", "/a", "GET */a []"),
            ("HEAD", "/b", "HEAD */b []"),
            ("GET", "/b", "GET */b []"),
            ("GET", "/c", "GET */c []"),
            ("HEAD", "/c", "GET */c []"),
            ("PUT", "/c", "*/c []"),
            ("PURGE", "/a", "POST,PURGE a.com/a []"),
            ("PUT", "/d", "*/** [d]"),
        ] {
            assert_eq!(found(&texts, method, "a.com", path), expected, "{method} {path}");
        }
        assert_eq!(found(&texts[..7], "PUT", "a.com", "/a"), "405 GET, HEAD, POST, PURGE");
        assert_eq!(found(&texts[..7], "PUT", "b.com", "/a"), "405 GET, HEAD");
        assert_eq!(found(&texts[..7], "GET", "a.com", "/x"), "404");
    }

    #[test]
    fn captures_are_ranges_of_the_path() {
        let path = "/a/%C3%A9/é/x";
        let Found::Route { params, .. } =
            table(&["*/a/{x}/{y}/**"]).find(&Request::new("GET", "h", path).lookup())
        else {
            panic!("not found")
        };
        assert_eq!((params.len(), params.is_empty()), (3, false));
        assert_eq!(
            (params.value(path, 1), params.value(path, 2), params.value(path, 3)),
            (Some("é"), Some("x"), None)
        );
        assert_eq!(params.value("/", 1), None);
    }

    #[test]
    fn long_paths_and_many_segments_are_harmless() {
        let texts = ["*/{a}/**", "*/{a}/{b}/{c}"];
        assert!(found(&texts, "GET", "h", &"/x".repeat(30_000)).starts_with("*/{a}/** ["));
        assert!(found(&texts, "GET", "h", &"/".repeat(30_000)).starts_with("404"));
    }

    fn tests_of(values: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, Test)>> {
        let test = prop_oneof![
            select(values).prop_map(|value| Test::Is(value.to_owned())),
            Just(Test::OneOf(vec!["2".to_owned(), "3".to_owned()])),
            Just(Test::Present),
            Just(Test::Absent),
            Just(Test::Matches(regex::Regex::new("^[12]$").unwrap())),
        ];
        let count = prop_oneof![4 => Just(0_usize), 1 => 1..=2_usize];
        count.prop_flat_map(move |count| vec((select(&["x", "y"]), test.clone()), count))
    }

    prop_compose! {
        fn any_rule()(
            host in select(&["*", "a.com", "b.com", "*.com", "*.a.com"]),
            path in "(/([abc]|\\{p\\}|\\{q\\})){0,3}(/|/\\*\\*|/\\{r\\.\\.\\.\\})?",
            methods in option::weighted(0.6, subsequence(vec!["GET", "HEAD", "POST", "PUT", "PURGE"], 1..3)),
            headers in tests_of(&["1", "2", "3"]),
            query in tests_of(&["1", "2", "3"]),
            listeners in option::weighted(0.3, subsequence(vec![0, 1, 2], 1..3)),
            priority in prop_oneof![6 => Just(0), 1 => Just(5), 1 => Just(-5)],
        ) -> Rule {
            // Names must differ; which ones does not matter here.
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let path = (0..4).fold(path, |path, at| path.replacen("{p}", &format!("{{n{at}}}"), 1));
            let path = (0..4).fold(path, |path, at| path.replacen("{q}", &format!("{{m{at}}}"), 1));
            Rule {
                methods: methods.map(|words| Methods::parse(words).unwrap()),
                headers: headers.into_iter().map(|(name, test)| HeaderTest { name: name.parse().unwrap(), test }).collect(),
                query: query.into_iter().map(|(name, test)| QueryTest { name: name.to_owned(), test }).collect(),
                listeners,
                priority,
                ..rule(&format!("{host}{path}"))
            }
        }
    }

    /// Random rules over a small alphabet, numbered as routes.
    pub(in super::super) fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
        vec(any_rule(), 0..=most).prop_map(|rules| {
            rules.into_iter().zip(0..).map(|(rule, route)| Rule { route, ..rule }).collect()
        })
    }

    prop_compose! {
        fn any_request()(
            host in option::weighted(0.9, select(&["a.com", "b.com", "c.com", "x.a.com", "x.y.a.com"])),
            path in "(/[abcd]){0,4}/?",
            query in option::of("([xyz]=[1234]&?){0,2}"),
            method in select(&["GET", "HEAD", "POST", "PUT", "PURGE", "DELETE"]),
            headers in vec((select(&["x", "y"]), select(&["1", "2", "4"])), 0..3),
            listener in 0_u16..3,
        ) -> Request {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let mut request = Request { query, listener, ..Request::new(method, "", &path) };
            request.host = host.map(str::to_owned);
            for (name, value) in headers {
                request.headers.append(name, value.parse().unwrap());
            }
            request
        }
    }

    /// The captures of a pattern, written without the table's means.
    fn captures(pattern: &PathPattern, path: &str) -> Option<Vec<String>> {
        let parts: Vec<&str> = path[1..].split('/').collect();
        let wanted = pattern.segments();
        let fits =
            if pattern.tail().is_some() { parts.len() >= wanted.len() } else { parts.len() == wanted.len() };
        if !fits {
            return None;
        }
        let mut captured = Vec::new();
        for (part, segment) in parts.iter().zip(wanted) {
            match segment {
                Segment::Literal(text) if **text == **part => {}
                Segment::Param(_) if !part.is_empty() => captured.push((*part).to_owned()),
                _ => return None,
            }
        }
        if pattern.tail().is_some() {
            captured.push(parts[wanted.len()..].join("/"));
        }
        Some(captured)
    }

    fn naive_host(pattern: &HostPattern, host: Option<&str>) -> Option<u8> {
        match (pattern.to_string(), host) {
            (text, _) if text == "*" => Some(2),
            (text, Some(host)) if text == host => Some(0),
            (text, Some(host)) => {
                let label = host.strip_suffix(text.strip_prefix('*')?)?;
                (!label.is_empty() && !label.contains('.')).then_some(1)
            }
            _ => None,
        }
    }

    fn naive_conditions(rule: &Rule, request: &Request) -> bool {
        let passes = |test: &Test, values: Vec<&str>| match test {
            Test::Is(text) => values.contains(&&**text),
            Test::OneOf(texts) => values.iter().any(|value| texts.iter().any(|text| text == value)),
            Test::Present => !values.is_empty(),
            Test::Absent => values.is_empty(),
            Test::Matches(_) => values.iter().any(|value| *value == "1" || *value == "2"),
        };
        let headers = |name: &http::HeaderName| {
            request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect()
        };
        let query = |name: &str| -> Vec<&str> {
            let pairs = request
                .query
                .iter()
                .flat_map(|query| query.split('&'))
                .filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
        };
        rule.headers.iter().all(|test| passes(&test.test, headers(&test.name)))
            && rule.query.iter().all(|test| passes(&test.test, query(&test.name)))
            && rule.listeners.as_ref().is_none_or(|listeners| listeners.contains(&request.listener))
    }

    /// Priority, host, path, method and conditions as numbers, smaller first.
    type Key = (i32, u8, (u8, i32, Vec<bool>), Option<u8>, i32);

    /// The documented order for a rule that matches in all but perhaps the method.
    fn naive_key(rule: &Rule, request: &Request) -> Option<Key> {
        let host = naive_host(&rule.host, request.host.as_deref())?;
        captures(&rule.path, &request.path)?;
        if !naive_conditions(rule, request) {
            return None;
        }
        let params: Vec<bool> = rule.path.segments().iter().map(Segment::is_param).collect();
        let class = if rule.path.tail().is_some() { 2 } else { u8::from(params.contains(&true)) };
        let method = match &rule.methods {
            None => Some(2),
            Some(methods) if methods.states(&request.method) => Some(0),
            Some(methods) if request.method == Method::HEAD && methods.states(&Method::GET) => Some(1),
            Some(_) => None,
        };
        let conditions = rule.headers.len() + rule.query.len();
        Some((-rule.priority, host, (class, -(params.len() as i32), params), method, -(conditions as i32)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn agrees_with_a_naive_matcher(rules in rules(24), requests in vec(any_request(), 12)) {
            let table = Table::new(rules.clone());
            for request in requests {
                let keys = rules.iter().filter_map(|rule| naive_key(rule, &request).map(|key| (key, rule)));
                let (matching, wrong_method): (Vec<_>, Vec<_>) = keys.partition(|(key, _)| key.3.is_some());
                let best = matching.iter().map(|(key, _)| key).min();
                match table.find(&request.lookup()) {
                    Found::Route { route, params } => {
                        let found = &rules[route as usize];
                        let key = naive_key(found, &request);
                        prop_assert_eq!(key.as_ref(), best, "{} for {:?}", found, request);
                        let values: Vec<String> = params.values(&request.path).map(str::to_owned).collect();
                        prop_assert_eq!(Some(values), captures(&found.path, &request.path));
                    }
                    other => {
                        prop_assert_eq!(best, None, "{:?} for {:?}", other, request);
                        let mut allowed = Methods::default();
                        wrong_method.iter().filter_map(|(_, rule)| rule.methods.as_ref()).for_each(|m| allowed.extend(m));
                        let expected = if allowed.is_empty() { Found::Nothing } else { Found::MethodNotAllowed(allowed) };
                        prop_assert_eq!(other, expected);
                    }
                }
            }
        }

        #[test]
        fn the_order_of_the_file_does_not_matter(rules in rules(16).prop_shuffle(), requests in vec(any_request(), 8)) {
            let mut by_route = rules.clone();
            by_route.sort_by_key(|rule| rule.route);
            let (one, other) = (Table::new(rules), Table::new(by_route));
            for request in requests {
                prop_assert_eq!(one.find(&request.lookup()), other.find(&request.lookup()));
            }
        }
    }
}
