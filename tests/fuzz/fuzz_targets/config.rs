//! Any text as a configuration: read, built, explained, shown and reported.
//!
//! Nothing may panic or hang; every place lies in the text; what comes from outside is told to nobody; what is printed
//! cannot move the cursor of a terminal. No file is read and nothing is connected to.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tollgate::config::interpolate::{Environment, interpolate};
use tollgate::config::report::{Format, report};
use tollgate::config::yaml::{Kind, Node, parse};
use tollgate::config::{Document, Loaded, de, effective};
use tollgate::explain::{Question, explain};
use tollgate::observe::metrics::Metrics;
use tollgate::snapshot::{Shared, Snapshot};
use tollgate::upstream::{Client, Resolver};
use tollgate::value::issue::Source;
use tollgate::value::{At, Issues, Sources};

/// Nothing can be opened below a file that is no directory; only absolute paths lead out of it.
const BASE: &str = "/dev/null";
/// What a report must not tell.
const SECRET: &str = "qZ7wX4vK9s";
/// Metrics remember every name they are asked for; so they are made anew after so many configurations.
const BUILDS: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let sources = Sources(vec![Source { name: "fuzz.yaml".to_owned(), text: text.into() }]);
    let mut issues = Issues::default();
    read(text, &sources, &mut issues);
    check_places(text, &sources, &issues);
    issues.sort();
    check_reports(text, &sources, &issues);
});

/// What a start does with a text, but for the files it names.
fn read(text: &str, sources: &Sources, issues: &mut Issues) {
    let Some(mut tree) = parse(0, text, issues) else { return };
    check_tree(text, &tree);
    if any_text(&tree, &|_, value| value.contains("${file:/")) {
        return;
    }
    interpolate(&mut tree, &environment(), issues);
    let Some((document, whole)) = de::read_what_can_be::<Document>(&tree, issues) else { return };
    if any_text(&tree, &|key, value| is_path_elsewhere(key, value)) {
        return;
    }
    let loaded = Loaded { document, tree, base: PathBuf::from(BASE), hash: "0".repeat(12), whole };
    for shown in [
        effective::show(&loaded, sources, false, None),
        effective::show(&loaded, sources, true, None),
        effective::json(&loaded, sources).to_string(),
    ] {
        assert!(text.contains(SECRET) || !shown.contains(SECRET), "shown: {shown}");
    }
    build(&loaded, sources, issues);
}

fn environment() -> Environment {
    let variables = [("HOST", "example.com"), ("EMPTY", ""), ("PORT", "8080"), ("SECRET", SECRET)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Environment::fixed(Path::new(BASE), variables)
}

/// Builds the snapshot, builds it again as a reload would, and asks it for a request.
fn build(loaded: &Loaded, sources: &Sources, issues: &mut Issues) {
    with_shared(|shared| {
        let Some(snapshot) = Snapshot::build(loaded, shared, None, issues) else { return };
        let mut again = Issues::default();
        assert!(Snapshot::build(loaded, shared, Some(&snapshot), &mut again).is_some(), "{again:?}");
        for (method, url) in [(Method::GET, "http://example.com/orders/7?a=1"), (Method::HEAD, "/")] {
            let question = Question {
                method,
                url: url.to_owned(),
                headers: Vec::new(),
                from: IpAddr::V4(Ipv4Addr::LOCALHOST),
                listener: None,
            };
            let explanation = explain(&snapshot, sources, &question);
            assert!(explanation.is_ok(), "{explanation:?}");
        }
    });
}

fn with_shared(run: impl FnOnce(&Shared)) {
    thread_local! {
        static SHARED: RefCell<(usize, Shared)> = RefCell::new((0, shared()));
    }
    SHARED.with_borrow_mut(|(builds, shared)| {
        *builds += 1;
        if builds.is_multiple_of(BUILDS) {
            shared.metrics = metrics();
        }
        run(shared);
    });
}

fn shared() -> Shared {
    pingora::tls::install_default_crypto_provider();
    Shared {
        metrics: metrics(),
        resolver: Arc::new(Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()),
        client: Arc::new(Client::new(None)),
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(1_000).unwrap()
}

/// Whether some text of the tree, with the key it stands under, is what is looked for.
fn any_text(node: &Node, looked_for: &impl Fn(&str, &str) -> bool) -> bool {
    fn below(key: &str, node: &Node, looked_for: &impl Fn(&str, &str) -> bool) -> bool {
        match &node.kind {
            Kind::Refused => false,
            Kind::Scalar(scalar) => scalar.value.as_str().is_some_and(|text| looked_for(key, text)),
            Kind::Seq(items) => items.iter().any(|item| below(key, item, looked_for)),
            Kind::Map(entries) => {
                entries.iter().any(|entry| below(&entry.key.value, &entry.value, looked_for))
            }
        }
    }
    below("", node, looked_for)
}

fn is_path_elsewhere(key: &str, value: &str) -> bool {
    matches!(key, "ca" | "cert" | "key" | "file") && value.starts_with('/')
}

fn check_tree(text: &str, node: &Node) {
    check_place(text, node.at);
    match &node.kind {
        Kind::Scalar(_) | Kind::Refused => {}
        Kind::Seq(items) => items.iter().for_each(|item| check_tree(text, item)),
        Kind::Map(entries) => {
            for entry in entries {
                check_place(text, entry.key.at);
                check_tree(text, &entry.value);
            }
        }
    }
}

fn check_places(text: &str, sources: &Sources, issues: &Issues) {
    for issue in &issues.0 {
        let also = issue.also.iter().map(|(at, _)| *at);
        for at in also.chain([issue.at]).filter(|at| at.is_somewhere()) {
            check_place(text, at);
            assert!(sources.line_column(at).is_some(), "{issue:?}");
        }
    }
}

fn check_place(text: &str, at: At) {
    assert_eq!(at.file, 0, "{at:?}");
    assert!(text.get(at.start as usize..at.end as usize).is_some(), "{at:?} of {} bytes", text.len());
}

fn check_reports(text: &str, sources: &Sources, issues: &Issues) {
    for format in [Format::Human { color: false }, Format::Human { color: true }, Format::Json, Format::Sarif]
    {
        let mut out = Vec::new();
        report(&mut out, issues, sources, &format, "The running configuration is unchanged.").unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(text.contains(SECRET) || !out.contains(SECRET), "reported: {out}");
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(matches!(format, Format::Human { color: true }) || out.chars().all(printable), "{out:?}");
    }
}
