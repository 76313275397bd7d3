//! Any text as a request and as the rules it is looked up in.
//!
//! The first line is a request, `[METHOD ]path[?query]`, the second its host, each further line a rule,
//! `[METHOD[,METHOD…] ][host]/pattern`; `!` in front raises its priority. Every line is a word of each kind as well.

#![no_main]

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use tollgate::route::matching::Match;
use tollgate::route::{Found, Lookup, Methods, Rule, Table, conflicts};
use tollgate::value::{HostPattern, Normalize, PathPattern, Short, Template, host_key, normalize};

/// More rules than this show nothing new.
const MOST_RULES: usize = 32;
const MODES: [Normalize; 3] = [Normalize::Strict, Normalize::Lenient, Normalize::Off];

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    check_path(&text);
    for line in text.split('\n') {
        check_path(line);
        check_words(line);
    }
    check_lookup(&text);
});

fn check_path(raw: &str) {
    let strict = normalize(raw, Normalize::Strict);
    let lenient = normalize(raw, Normalize::Lenient);
    assert!(strict.is_err() || strict == lenient, "{raw:?}: {strict:?}, {lenient:?}");
    for (mode, normal) in [(Normalize::Strict, strict), (Normalize::Lenient, lenient)] {
        let Ok(normal) = normal else { continue };
        assert_eq!(normalize(&normal, mode).as_ref(), Ok(&normal), "{raw:?} again, {mode:?}");
        assert!(normal.starts_with('/') && !normal.contains("//"), "{raw:?} to {normal:?}, {mode:?}");
        assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{raw:?} to {normal:?}");
        let graphic = normal.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        assert!(graphic && !has_escaped_control(&normal), "{raw:?} to {normal:?}, {mode:?}");
        if mode == Normalize::Strict {
            assert!(!normal.contains("%2F") && !normal.contains("%5C"), "{raw:?} to {normal:?}");
        }
    }
    assert_eq!(normalize(raw, Normalize::Off).is_ok(), raw.starts_with('/'));
}

fn has_escaped_control(path: &str) -> bool {
    let escapes = path.split('%').skip(1);
    escapes.into_iter().any(|escape| escape.starts_with(['0', '1']) || escape.starts_with("7F"))
}

/// What parses prints itself so that it parses to the same.
fn check_words(text: &str) {
    if let Ok(pattern) = text.parse::<PathPattern>() {
        assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern), "{text:?}");
        assert!(pattern.covers(&pattern) && pattern.same_shape(&pattern), "{text:?}");
        if let Ok(joined) = pattern.join(&pattern) {
            assert_eq!(joined.to_string().parse().as_ref(), Ok(&joined), "{text:?} twice");
        }
    }
    if let Ok(pattern) = text.parse::<HostPattern>() {
        assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern), "{text:?}");
        assert!(pattern.covers(&pattern), "{text:?}");
    }
    if let Some(key) = host_key(text) {
        assert_eq!(host_key(&key).as_ref(), Some(&key), "{text:?} again");
    }
    if let Ok(template) = text.parse::<Template>() {
        assert_eq!(template.to_string().parse().as_ref(), Ok(&template), "{text:?}");
        let _ = template.bind("api", "route", &["id", "rest"]);
    }
    let _ = Match::from_short(text);
}

fn check_lookup(text: &str) {
    let mut lines = text.split('\n');
    let (method, target) = method_first(lines.next().unwrap_or_default());
    let method = method.and_then(|method| method.parse().ok()).unwrap_or(Method::GET);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let host = host_key(lines.next().unwrap_or_default());
    let rules: Vec<Rule> = (0..).zip(lines.filter_map(rule).take(MOST_RULES)).map(numbered).collect();
    let _ = conflicts(&rules);
    let table = Table::new(rules.clone());
    for mode in MODES {
        let Ok(path) = normalize(path, mode) else { continue };
        let headers = HeaderMap::new();
        let lookup = Lookup {
            host: host.as_deref(),
            path: &path,
            query,
            method: &method,
            headers: &headers,
            listener: 0,
        };
        let _ = table.near(&lookup, 5);
        check_found(&table, &rules, &lookup);
        if mode != Normalize::Off {
            check_first(&table, &lookup);
        }
    }
}

fn numbered((route, rule): (u32, Rule)) -> Rule {
    Rule { route, ..rule }
}

fn method_first(line: &str) -> (Option<&str>, &str) {
    line.split_once(' ').map_or((None, line), |(method, rest)| (Some(method), rest))
}

fn rule(line: &str) -> Option<Rule> {
    let (line, priority) = line.strip_prefix('!').map_or((line, 0), |line| (line, 1));
    let (methods, place) = method_first(line);
    let (host, path) = place.split_at(place.find('/')?);
    Some(Rule {
        host: if host.is_empty() { HostPattern::Any } else { host.parse().ok()? },
        path: path.parse().ok()?,
        methods: methods.map(|methods| Methods::parse(methods.split(','))).transpose().ok()?,
        headers: Vec::new(),
        query: Vec::new(),
        listeners: None,
        priority,
        route: 0,
    })
}

/// The answer is one that the request may have.
fn check_found(table: &Table, rules: &[Rule], lookup: &Lookup<'_>) {
    match table.find(lookup) {
        Found::Route { route, params } => {
            let rule = &rules[route as usize];
            let captures =
                rule.path.tail_capture().map_or_else(|| rule.path.names().count(), |tail| tail + 1);
            assert!(matches(rule, lookup) && answers(rule, lookup.method), "{rule} for {lookup:?}");
            assert_eq!((params.len(), params.values(lookup.path).count()), (captures, captures), "{rule}");
        }
        Found::MethodNotAllowed(allowed) => {
            assert!(!allowed.is_empty() && !allowed.answers(lookup.method), "{allowed:?} for {lookup:?}");
        }
        Found::Nothing => assert!(!rules.iter().any(|rule| matches(rule, lookup)), "{lookup:?}"),
    }
}

/// The route of a GET is that of the first rule that matches in the order of the table.
fn check_first(table: &Table, lookup: &Lookup<'_>) {
    let lookup = Lookup { method: &Method::GET, ..*lookup };
    let first = table.order().iter().find(|rule| matches(rule, &lookup) && answers(rule, lookup.method));
    let found = match table.find(&lookup) {
        Found::Route { route, .. } => Some(route),
        _ => None,
    };
    assert_eq!(found, first.map(|rule| rule.route), "{lookup:?}");
}

fn answers(rule: &Rule, method: &Method) -> bool {
    rule.methods.as_ref().is_none_or(|methods| methods.answers(method))
}

/// Host and path of a rule, looked at without the table's means.
fn matches(rule: &Rule, lookup: &Lookup<'_>) -> bool {
    let parts: Vec<&str> = lookup.path[1..].split('/').collect();
    let wanted = rule.path.segments();
    let fits = parts.len() == wanted.len() || rule.path.tail().is_some() && parts.len() > wanted.len();
    let same = parts.iter().zip(wanted).all(|(part, segment)| segment.matches(part));
    rule.host.matches(lookup.host) && fits && same
}
