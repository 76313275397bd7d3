//! Any text as a configuration: read, built, explained, shown and reported.
//!
//! Nothing may panic or hang; every place lies in the text; what comes from outside is told to nobody; what is printed
//! cannot move the cursor of a terminal. Nothing is connected to, and no file is read but the text itself, which `load`
//! wants in one: a text that names files of another directory is read no further.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, Runtime};
use tollgate::cache::Store;
use tollgate::config::interpolate::{Environment, interpolate};
use tollgate::config::report::{Format, report};
use tollgate::config::yaml::{Kind, Node, parse};
use tollgate::config::{Document, Loaded, de, effective, load};
use tollgate::explain::{Question, explain};
use tollgate::listen::tls::tickets::Tickets;
use tollgate::observe::metrics::Metrics;
use tollgate::snapshot::{Shared, Snapshot};
use tollgate::store::keeper::Sweeper;
use tollgate::store::memory::Memory;
use tollgate::upstream::{Client, Resolver};
use tollgate::value::issue::Source;
use tollgate::value::{At, Issue, Issues, Sources};

/// What must not be told.
const SECRET: &str = "qZ7wX4vK9s";
const VARIABLES: [(&str, &str); 4] =
    [("HOST", "example.com"), ("EMPTY", ""), ("PORT", "8080"), ("SECRET", SECRET)];
/// Metrics remember every name they are asked for; so they are made anew after so many configurations.
const BUILDS: usize = 256;
/// Keys of limits that are remembered.
const MOST_KEYS: usize = 1_000;

/// Explaining may wait.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());
/// The text, alone in a directory.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("tollgate-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.join("fuzz.yaml")
});

fuzz_target!(init: set_variables(), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut sources = Sources(vec![Source { name: "fuzz.yaml".to_owned(), text: text.into() }]);
    let mut issues = Issues::default();
    if read(text, &mut issues) {
        check(text, &sources, &mut issues);
        (sources, issues) = (Sources::default(), Issues::default());
        std::fs::write(&*FILE, text).unwrap();
        if let Some(loaded) = load(&FILE, &mut sources, &mut issues) {
            show(text, &loaded, &sources);
            build(&loaded, &sources, &mut issues);
        }
    }
    check(text, &sources, &mut issues);
});

fn set_variables() {
    for (name, value) in VARIABLES {
        // SAFETY: nothing else runs yet.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Reads a text as it is; whether it names no file elsewhere.
fn read(text: &str, issues: &mut Issues) -> bool {
    let Some(mut tree) = parse(0, text, issues) else { return false };
    check_tree(text, &tree);
    if tree.value("include").is_some() || any_text(&tree, &|_, text| is_reference_elsewhere(text)) {
        return false;
    }
    let variables = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Nothing can be opened below a file.
    interpolate(&mut tree, &Environment::fixed(Path::new("/dev/null"), variables), issues);
    let typed = de::read_what_can_be::<Document>(&tree, issues);
    typed.is_some() && !any_text(&tree, &is_path_elsewhere)
}

fn show(text: &str, loaded: &Loaded, sources: &Sources) {
    for shown in [
        effective::show(loaded, sources, false, None),
        effective::show(loaded, sources, true, None),
        effective::json(loaded, sources).to_string(),
    ] {
        check_secret(text, &shown);
    }
}

/// Builds the snapshot, builds it again as a reload would, and asks it for a request.
fn build(loaded: &Loaded, sources: &Sources, issues: &mut Issues) {
    with_shared(|shared| {
        let mut further = Issues::default();
        let snapshot = Snapshot::build(loaded, shared, None, &mut further);
        issues.0.extend(further.0.into_iter().map(|issue| masked(issue, loaded)));
        let Some(snapshot) = snapshot else { return };
        let mut again = Issues::default();
        assert!(Snapshot::build(loaded, shared, Some(&snapshot), &mut again).is_some(), "{again:?}");
        // Who proves nothing would make providers fetch keys or ask somebody.
        let consumer = snapshot.consumers.names().next().map(str::to_owned);
        if consumer.is_none() && loaded.document.auth.iter().next().is_some() {
            return;
        }
        for (method, url) in [(Method::GET, "http://example.com/orders/7?a=1"), (Method::HEAD, "/")] {
            let question = Question {
                method,
                url: url.to_owned(),
                headers: Vec::new(),
                from: IpAddr::V4(Ipv4Addr::LOCALHOST),
                listener: None,
                consumer: consumer.clone(),
                body: Some(7),
                trace: true,
            };
            let explanation = RUNTIME.block_on(explain(&snapshot, sources, &question));
            assert!(explanation.is_ok(), "{explanation:?}");
        }
    });
}

/// As every command masks what is found while building.
fn masked(mut issue: Issue, loaded: &Loaded) -> Issue {
    let texts = issue.notes.iter_mut().chain(issue.also.iter_mut().map(|(_, note)| note));
    texts.chain([&mut issue.message, &mut issue.label]).for_each(|text| *text = loaded.mask(text));
    issue
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
    let memory = Arc::new(Memory::new(MOST_KEYS));
    Shared {
        metrics: metrics(),
        resolver: Arc::new(Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()),
        client: Arc::new(Client::new(None)),
        cache: Store::new(1 << 20),
        sweeper: Arc::new(Sweeper(memory.clone())),
        tickets: Arc::new(Tickets::new().unwrap()),
        memory,
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

fn is_reference_elsewhere(text: &str) -> bool {
    (text.contains("${file:") || text.contains("${cred:")) && text.contains('/')
}

fn is_path_elsewhere(key: &str, text: &str) -> bool {
    let is_path = matches!(key, "ca" | "cert" | "key" | "file" | "pem" | "jwks");
    is_path && text.contains('/') && !text.contains("://")
}

fn check(text: &str, sources: &Sources, issues: &mut Issues) {
    check_places(text, sources, issues);
    issues.sort();
    check_reports(text, sources, issues);
}

fn check_secret(text: &str, told: &str) {
    let has = |text: &str| text.to_ascii_lowercase().contains(&SECRET.to_ascii_lowercase());
    assert!(has(text) || !has(told), "{told}");
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
        check_secret(text, &out);
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(matches!(format, Format::Human { color: true }) || out.chars().all(printable), "{out:?}");
    }
}
