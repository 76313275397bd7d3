//! The configuration shown again: as merged from its files, or as it holds for each route, with the place of every value.
//!
//! This works on the tree, not on the types, because only the tree knows where everything was written and what came from
//! outside. What came from outside, and every secret of `SECRETS`, is never shown.

pub(super) mod built_in;
mod resolve;
mod write;

pub(in crate::config) use resolve::INHERITED;

use super::Loaded;
use super::yaml::{Entry, Kind, Node, Scalar};
use crate::value::{At, Sources, Spanned};
use serde_json::{Map, Value, json};

/// What is never shown, wherever it is from; `*` stands for every name.
const SECRETS: [&[&str]; 6] = [
    &["admin", "tokens"],
    &["auth", "*", "jwt", "secret"],
    &["auth", "*", "introspection", "client_secret"],
    &["auth", "*", "basic", "users"],
    &["stores", "redis", "url"],
    &["upstreams", "*", "balance", "sticky_cookie", "secret"],
];

/// What stands for a value that is not shown.
pub(super) const REDACTED: &str = "[redacted]";

/// The configuration as YAML.
///
/// Without `effective`, it is what was written, includes merged, in the order of the files. With it, every route has what
/// it inherits, versions are unfolded, built-in defaults are there too, and each line ends in a comment that says where it
/// comes from. `only_route` (`api.route`, or `api.version.route`) leaves out all else; the text is empty if there is no such
/// route.
pub fn show(loaded: &Loaded, sources: &Sources, effective: bool, only_route: Option<&str>) -> String {
    let mut tree = merged(loaded);
    if effective {
        tree = resolve::routes(&tree);
        built_in::complete(&mut tree);
    }
    if only_route.is_some_and(|id| !keep_route(&mut tree, id)) {
        return String::new();
    }
    let origins = effective.then(|| Origins::new(sources));
    write::text(&tree, origins.as_ref())
}

/// The configuration as the admin listener gives it: its hash, the merged document, and for the path of every key and list
/// item (`apis.shop.routes.read.match`) the `file:line` it stands on.
pub fn json(loaded: &Loaded, sources: &Sources) -> Value {
    let tree = merged(loaded);
    let mut places = Map::new();
    Origins::new(sources).of_all(&tree, "", &mut places);
    json!({ "hash": loaded.hash, "document": document(&tree), "origins": places })
}

/// The tree of all files, with what is never shown marked as secret. `include` has done its work and is left out.
pub(super) fn merged(loaded: &Loaded) -> Node {
    let mut tree = loaded.tree.clone();
    if let Kind::Map(entries) = &mut tree.kind {
        entries.retain(|entry| entry.key.value != "include");
    }
    for path in SECRETS {
        hide_at(&mut tree, path);
    }
    tree
}

fn hide_at(node: &mut Node, path: &[&str]) {
    match (path, &mut node.kind) {
        ([], _) => hide(node),
        (["*", rest @ ..], Kind::Map(entries)) => {
            entries.iter_mut().for_each(|entry| hide_at(&mut entry.value, rest));
        }
        ([key, rest @ ..], _) => {
            if let Some(child) = child(node, key) {
                hide_at(child, rest);
            }
        }
    }
}

fn hide(node: &mut Node) {
    match &mut node.kind {
        Kind::Scalar(scalar) => scalar.secret = true,
        Kind::Seq(items) => items.iter_mut().for_each(hide),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| hide(&mut entry.value)),
        Kind::Refused => {}
    }
}

/// The value of a key of a map.
fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Kind::Map(entries) = &mut node.kind else { return None };
    entries.iter_mut().find(|entry| entry.key.value == key).map(|entry| &mut entry.value)
}

/// Leaves only one route and the API around it; false if there is none. A version may be left out of its name.
fn keep_route(tree: &mut Node, id: &str) -> bool {
    let Some((api, route)) = id.split_once('.') else { return false };
    keep(tree, |key| key == "apis");
    let Some(apis) = child(tree, "apis") else { return false };
    keep(apis, |key| key == api);
    let Some(routes) = child(apis, api).and_then(|api| child(api, "routes")) else { return false };
    keep(routes, |key| key == route || key.split_once('.').is_some_and(|(_, name)| name == route));
    matches!(&routes.kind, Kind::Map(entries) if !entries.is_empty())
}

fn keep(node: &mut Node, wanted: impl Fn(&str) -> bool) {
    if let Kind::Map(entries) = &mut node.kind {
        entries.retain(|entry| wanted(&entry.key.value));
    }
}

/// A scalar as it may be shown: as it was written, so that reading it again gives the same.
fn visible(scalar: &Scalar) -> serde_yaml::Value {
    match &scalar.written {
        _ if scalar.secret => REDACTED.into(),
        Some(written) => written.as_str().into(),
        None => scalar.value.clone(),
    }
}

fn document(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) => serde_json::to_value(visible(scalar)).unwrap_or_default(),
        Kind::Seq(items) => items.iter().map(document).collect(),
        Kind::Map(entries) => {
            entries.iter().map(|entry| (entry.key.value.clone(), document(&entry.value))).collect()
        }
        Kind::Refused => Value::Null,
    }
}

/// Where things are written. Knows where each line begins, since a large configuration asks for many.
struct Origins<'a> {
    sources: &'a Sources,
    newlines: Vec<Vec<usize>>,
}

impl<'a> Origins<'a> {
    fn new(sources: &'a Sources) -> Self {
        let newlines = |text: &str| memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Origins { sources, newlines: sources.0.iter().map(|source| newlines(&source.text)).collect() }
    }

    /// `file:line`, or `default` for what nobody wrote.
    fn of(&self, at: At) -> String {
        let newlines = self.newlines.get(usize::from(at.file));
        let (Some(source), Some(newlines)) = (self.sources.source(at), newlines) else {
            return "default".to_owned();
        };
        let line = newlines.partition_point(|newline| *newline < at.start as usize) + 1;
        format!("{}:{line}", source.name)
    }

    fn of_all(&self, node: &Node, path: &str, into: &mut Map<String, Value>) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let mut add = |key: &str, at: At, value: &Node| {
            let path = below(key);
            into.insert(path.clone(), self.of(at).into());
            self.of_all(value, &path, into);
        };
        match &node.kind {
            Kind::Scalar(_) | Kind::Refused => {}
            Kind::Map(entries) => {
                entries.iter().for_each(|entry| add(&entry.key.value, entry.key.at, &entry.value))
            }
            Kind::Seq(items) => (0..)
                .zip(items)
                .for_each(|(number, item): (usize, _)| add(&number.to_string(), item.at, item)),
        }
    }
}

/// An entry that nobody wrote.
fn built_in_entry(key: &str, kind: Kind) -> Entry {
    Entry { key: Spanned::built_in(key.to_owned()), value: Node { at: At::NOWHERE, kind } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::docs;
    use crate::config::{de, document::Document, load, yaml};
    use crate::snapshot::Effective;
    use crate::value::Issues;

    const MAIN: &str = r#"
version: 1
include: conf.d/*.yaml
admin: { bind: "127.0.0.1:9900", tokens: { ops: a-token-that-nobody-sees } }
listeners: { web: { bind: "127.0.0.1:0" } }
defaults:
  auth: public
  timeouts: { response: 5s }
  ip: { deny: [10.6.6.6] }
  request: { path: { strip: /a }, headers: { remove: [x-gone, X-Both], set: { x-a: far, x-b: far }, add: { x-c: far } } }
  response: { headers: { set: { x-served: tollgate } } }
upstreams:
  app: { targets: ["unix:/run/app.sock", { addr: "127.0.0.1:3000", weight: 2 }] }
"#;

    const PART: &str = r#"
apis:
  shop:
    hosts: [api.example.com, "*.shop.example"]
    ip: none
    request: { headers: { set: { X-B: near, x-both: "${query.a}" }, rename: { x-c: x-d } } }
    routes:
      read: { match: "GET /orders/{id}", to: app, timeouts: { connect: 50ms } }
      bare: { match: /bare, to: app, request: none, body: none }
      own:
        match: { path: /own, headers: { x-y: present } }
        to: { respond: { json: { list: [1, "2", true, null, 1.5, {}, []] } } }
        auth: public
        body: { max: 1KiB }
        request: { query: { set: { a: "b c", "yes": "no" } }, path: { replace: "/x#y" } }
"#;

    /// A configuration of a main file and a part in `conf.d`, beside a file `secret`.
    fn loaded(main: &str, part: &str) -> (Loaded, Sources) {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
        std::fs::create_dir(base.path().join("conf.d")).unwrap();
        write("tollgate.yaml", main);
        write("conf.d/part.yaml", part);
        write("secret", "s3cret-in-a-file\n");
        let (mut sources, mut issues) = (Sources::default(), Issues::default());
        let loaded = load(&base.path().join("tollgate.yaml"), &mut sources, &mut issues);
        assert_eq!(issues.0, []);
        for source in &mut sources.0 {
            source.name = source.name.replace(&format!("{}/", base.path().display()), "");
        }
        (loaded.unwrap(), sources)
    }

    fn read(text: &str) -> Node {
        let mut issues = Issues::default();
        let tree = yaml::parse(0, text, &mut issues);
        assert_eq!(issues.0, [], "{text}");
        tree.unwrap()
    }

    /// What the comment of a line says; the line is found by its text.
    fn origin<'t>(shown: &'t str, line: &str) -> &'t str {
        let found: Vec<_> =
            shown.lines().filter(|shown| shown.split("  # ").next().unwrap().trim() == line).collect();
        let [found] = found.as_slice() else { panic!("{line} is there {} times:\n{shown}", found.len()) };
        found.split_once("  # ").map_or("", |(_, origin)| origin)
    }

    #[test]
    fn what_is_shown_reads_the_same() {
        let (loaded, sources) = loaded(MAIN, PART);
        let shown = show(&loaded, &sources, false, None);
        let expected = document(&merged(&loaded)).to_string().replace("a-token-that-nobody-sees", REDACTED);
        assert_eq!(document(&read(&shown)).to_string(), expected, "{shown}");
        assert!(
            shown.contains("    hosts:\n      - api.example.com\n      - \"*.shop.example\"\n"),
            "{shown}"
        );
        assert!(shown.contains("        match: GET /orders/{id}\n"), "{shown}");
        assert!(!shown.contains("include") && !shown.contains("  # "), "{shown}");
        let order: Vec<_> = ["version:", "admin:", "listeners:", "defaults:", "upstreams:", "apis:"]
            .iter()
            .map(|key| shown.find(key))
            .collect();
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn secrets_are_redacted_everywhere() {
        let main = MAIN.replace(
            "ops: a-token-that-nobody-sees",
            "ops: a-token-that-nobody-sees, dev: \"x${file:secret}\"",
        );
        let part = PART
            .replace("max: 1KiB", "max: \"${env:NOT_SET_ANYWHERE:-7KiB}\"")
            .replace("x-both: \"${query.a}\"", "x-key: \"a ${file:secret} b\", x-plain: \"$${env:HOME}\"");
        let (loaded, sources) = loaded(&main, &part);
        let json = serde_json::to_string(&json(&loaded, &sources)).unwrap();
        for text in [show(&loaded, &sources, false, None), show(&loaded, &sources, true, None), json] {
            for secret in ["s3cret", "nobody-sees", "7KiB"] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            for shown in ["[redacted]", "$${env:HOME}"] {
                assert!(text.contains(shown), "{shown} not in {text}");
            }
        }
        let shown = show(&loaded, &sources, false, None);
        for line in
            ["ops: \"[redacted]\"", "dev: \"[redacted]\"", "x-key: \"[redacted]\"", "max: \"[redacted]\""]
        {
            assert!(shown.contains(line), "{line} not in {shown}");
        }
    }

    #[test]
    fn every_line_of_the_effective_configuration_says_where_it_comes_from() {
        let (loaded, sources) = loaded(MAIN, PART);
        let shown = show(&loaded, &sources, true, Some("shop.read"));
        for (line, expected) in [
            ("match: GET /orders/{id}", "conf.d/part.yaml:8"),
            ("auth: public", "tollgate.yaml:7"),
            ("connect: 50ms", "conf.d/part.yaml:8"),
            ("response: 30s", "default"),
            ("idle: 60s", "default"),
            ("max: 10MiB", "default"),
            ("ip: none", "conf.d/part.yaml:5"),
            ("strip: /a", "tollgate.yaml:10"),
            ("forwarded: x-forwarded", "default"),
            ("x-served: tollgate", "tollgate.yaml:11"),
        ] {
            assert_eq!(origin(&shown, line), expected, "{line}\n{shown}");
        }
        let whole = show(&loaded, &sources, true, None);
        assert_eq!(origin(&whole, "header_bytes: 32KiB"), "default");
        assert_eq!(origin(&whole, "health: tcp"), "default");
        for line in whole.lines().filter(|line| !line.trim_end().ends_with(':')) {
            assert!(line.contains("  # "), "{line}");
        }
        assert!(!whole.contains("defaults:"), "{whole}");
    }

    #[test]
    fn header_maps_are_merged_by_name() {
        let (loaded, sources) = loaded(MAIN, PART);
        let shown = show(&loaded, &sources, true, Some("shop.read"));
        for (line, expected) in [
            ("- x-gone", "tollgate.yaml:10"),
            ("x-a: far", "tollgate.yaml:10"),
            ("X-B: near", "conf.d/part.yaml:6"),
            ("x-both: ${query.a}", "conf.d/part.yaml:6"),
            ("x-c: x-d", "conf.d/part.yaml:6"),
        ] {
            assert_eq!(origin(&shown, line), expected, "{shown}");
        }
        for gone in ["X-Both", "x-b: far", "x-c: far"] {
            assert!(!shown.contains(gone), "{gone} in {shown}");
        }
    }

    /// The effective configuration, read again, must say of each route by itself what inheritance says of it.
    #[test]
    fn what_is_shown_is_what_runs() {
        let (loaded, sources) = loaded(MAIN, PART);
        let mut issues = Issues::default();
        let shown = show(&loaded, &sources, true, None);
        let again: Document =
            de::read(&read(&shown), &mut issues).unwrap_or_else(|| panic!("{issues:?}\n{shown}"));
        let mut compared = 0;
        for (name, api) in loaded.document.apis.iter() {
            for (route_name, route) in api.routes.iter() {
                let runs =
                    Effective::new(&[loaded.document.defaults.settings(), api.settings(), route.settings()]);
                let shown =
                    again.apis.value(name.as_str()).unwrap().routes.value(route_name.as_str()).unwrap();
                let mut shows = Effective::new(&[shown.settings()]);
                if runs.request.forwarded.is_none() {
                    shows.request.value.forwarded = None;
                }
                let facts = |e: &Effective| {
                    (
                        (e.auth.clone(), e.ip.clone(), (e.timeouts, e.retry.clone()), e.body),
                        (e.cache.clone(), e.request.clone(), e.response.clone()),
                    )
                };
                assert_eq!(facts(&runs), facts(&shows), "{}", route_name.value);
                compared += 1;
            }
        }
        assert_eq!(compared, 3);
    }

    /// An empty map would turn a cache on: its defaults are shown where it is written and nowhere else.
    #[test]
    fn a_cache_is_shown_where_there_is_one() {
        let part = r#"
apis:
  shop:
    cache: { ttl: 60s }
    routes:
      kept: { match: /kept, to: app }
      never: { match: /never, to: app, cache: none }
  flat: { routes: { plain: { match: /plain, to: app } } }
"#;
        let (loaded, sources) = loaded(MAIN, part);
        let shown = |route| show(&loaded, &sources, true, Some(route));
        let kept = shown("shop.kept");
        for (line, expected) in [
            ("ttl: 60s", "conf.d/part.yaml:4"),
            ("respect_origin: true", "default"),
            ("max_object: 1MiB", "default"),
        ] {
            assert_eq!(origin(&kept, line), expected, "{kept}");
        }
        assert_eq!(origin(&shown("shop.never"), "cache: none"), "conf.d/part.yaml:7");
        assert!(!shown("flat.plain").contains("cache"));
    }

    #[test]
    fn versions_are_unfolded() {
        let part = r#"
apis:
  shop:
    to: app
    versions: { by: { path: "v{n}" }, v1: {}, v2: { to: other, default: true } }
    routes:
      read: { match: /read }
      old: { match: /old, versions: v1, to: { redirect: https } }
  flat: { routes: { read: { match: /flat, to: other } } }
"#;
        let main = MAIN.replace("upstreams:", "upstreams:\n  other: { targets: [\"127.0.0.1:1\"] }");
        let (loaded, sources) = loaded(&main, part);
        let tree = read(&show(&loaded, &sources, true, None));
        let routes = tree
            .value("apis")
            .and_then(|apis| apis.value("shop"))
            .and_then(|shop| shop.value("routes"))
            .unwrap();
        let Kind::Map(entries) = &routes.kind else { panic!() };
        let names: Vec<_> = entries.iter().map(|entry| entry.key.value.as_str()).collect();
        assert_eq!(names, ["v1.read", "v2.read", "v1.old"]);
        let to = |route: &str| document(routes.value(route).unwrap().value("to").unwrap());
        assert_eq!((to("v1.read"), to("v2.read")), ("app".into(), "other".into()));
        assert!(to("v1.old").is_object());
        let count = |id: &str| show(&loaded, &sources, true, Some(id)).matches("match:").count();
        assert_eq!(
            (
                count("shop.read"),
                count("shop.v2.read"),
                count("shop.v2.old"),
                count("flat.read"),
                count("read")
            ),
            (2, 1, 0, 1, 0)
        );
        assert_eq!(show(&loaded, &sources, true, Some("shop.none")), "");
    }

    #[test]
    fn json_has_the_place_of_every_key() {
        let (loaded, sources) = loaded(MAIN, PART);
        let json = json(&loaded, &sources);
        assert_eq!(json["hash"], loaded.hash.as_str());
        assert_eq!(json["document"]["admin"]["tokens"]["ops"], REDACTED);
        assert_eq!(json["document"]["upstreams"]["app"]["targets"][1]["weight"], 2);
        for (path, place) in [
            ("version", "tollgate.yaml:2"),
            ("apis.shop.routes.read.match", "conf.d/part.yaml:8"),
            ("apis.shop.routes.own.match.headers.x-y", "conf.d/part.yaml:11"),
            ("upstreams.app.targets.1.weight", "tollgate.yaml:13"),
        ] {
            assert_eq!(json["origins"][path], place, "{path}");
        }
    }

    /// What is shown as a default is what the reference says.
    #[test]
    fn defaults_are_those_of_the_reference() {
        for (path, value) in built_in::BUILT_IN {
            let documented = docs::default_of(&path.replace("apis.*.routes.*.", "defaults."));
            assert_eq!(documented.as_deref().map(|text| text.trim_matches('`')), Some(*value), "{path}");
        }
    }
}
