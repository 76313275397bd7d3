//! The house rules, each as a test: who may use whom, how long a file may be, that what is generated is current.

use crate::cases::yaml_files;
use crate::harness::{Authority, Plan, tollgate};
use regex::Regex;
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 600;
/// The life of a request must be readable in one go.
const LONGEST_GATEWAY: usize = 350;
/// Words that name nothing.
const EMPTY_WORDS: [&str; 6] = ["manager", "util", "helper", "common", "misc", "handler"];
/// Files beside the steps and actions that are none: the trait and THE LIST, the settings as written.
const NO_STEPS: [&str; 3] = ["mod", "rules", "to"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder, sorted.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The lines of a file up to its tests.
fn product_lines(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]").collect()
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The modules in the order of `src/lib.rs`, which is the order of dependency.
fn modules() -> Vec<String> {
    let declared = Regex::new(r"^(?:pub(?:\([a-z]+\))? )?mod ([a-z_]+);").unwrap();
    let text = read(&root().join("src/lib.rs"));
    product_lines(&text).iter().filter_map(|line| Some(declared.captures(line)?[1].to_owned())).collect()
}

/// The first segments of every `crate::…` path in a text: `crate::a::b`, `crate::{c, d::e}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let single = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    let mut used: BTreeSet<String> = single.captures_iter(&code).map(|found| found[1].to_owned()).collect();
    for (start, opening) in code.match_indices("crate::{") {
        used.extend(first_segments(&code[start + opening.len()..]));
    }
    used
}

/// What stands first in each item of a use list, up to its closing brace.
fn first_segments(list: &str) -> Vec<String> {
    let (mut depth, mut segments, mut word, mut in_first) = (0, Vec::new(), String::new(), true);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                segments.push(std::mem::take(&mut word));
                in_first = true;
            }
            ':' => in_first = false,
            ' ' if !word.is_empty() => in_first = false,
            c if in_first && depth == 0 && !c.is_whitespace() => word.push(c),
            _ => {}
        }
    }
    segments.push(word);
    segments.retain(|segment| !segment.is_empty());
    segments
}

#[test]
fn modules_use_only_what_stands_above_them() {
    let modules = modules();
    let rank = |name: &str| modules.iter().position(|module| module == name);
    let source = root().join("src");
    let mut upward = Vec::new();
    for path in rust_files(&source) {
        let relative = path.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
        let Some(own) = rank(first.trim_end_matches(".rs")) else { continue };
        for used in used_modules(&product_lines(&read(&path)).join("\n")) {
            if rank(&used).is_some_and(|used| used > own) {
                upward.push(format!(
                    "src/{}: uses `{used}`, which stands below it in src/lib.rs",
                    relative.display()
                ));
            }
        }
    }
    assert_none(&upward);
}

#[test]
fn every_source_file_belongs_to_a_module_of_lib_rs() {
    let modules = modules();
    let entries = std::fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let names = entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    let strangers = names.filter(|name| name != "lib" && name != "main" && !modules.contains(name));
    assert_none(&strangers.map(|name| format!("src/{name} is not in src/lib.rs")).collect::<Vec<_>>());
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for path in rust_files(&root().join("src")).into_iter().chain(rust_files(&root().join("tests/it"))) {
        let is_gateway = path.ends_with("src/gateway.rs");
        let most = if is_gateway { LONGEST_GATEWAY } else { LONGEST_FILE };
        let lines = product_lines(&read(&path)).len();
        if lines > most {
            long.push(format!("{}: {lines} lines, allowed are {most}", path.display()));
        }
    }
    assert_none(&long);
}

#[test]
fn names_say_something() {
    let declared = Regex::new(r"\b(?:struct|enum|trait|type|mod)\s+([A-Za-z_]+)").unwrap();
    let mut empty = Vec::new();
    for path in rust_files(&root().join("src")) {
        let text = read(&path);
        let names = declared.captures_iter(&text).map(|found| found[1].to_owned());
        for name in names.chain([path.file_stem().unwrap().to_string_lossy().into_owned()]) {
            if EMPTY_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word)) {
                empty.push(format!("{}: `{name}`", path.display()));
            }
        }
    }
    assert_none(&empty);
}

#[test]
fn schema_is_current() {
    is_current("conf/schema.json", &["config", "schema"]);
}

#[test]
fn reference_is_current() {
    is_current("conf/reference.md", &["config", "reference"]);
}

fn is_current(file: &str, command: &[&str]) {
    let ran = tollgate(command);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let path = root().join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, ran.stdout).unwrap();
    } else {
        assert!(
            read(&path) == ran.stdout,
            "{file} is not what `tollgate {}` prints; UPDATE=1 rewrites it",
            command.join(" ")
        );
    }
}

#[test]
fn every_step_and_action_has_a_case() {
    let cases: Vec<String> = yaml_files("tests/cases")
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut without = Vec::new();
    for folder in ["src/filters", "src/actions"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if !NO_STEPS.contains(&&*name) && !cases.iter().any(|case| case.starts_with(&name)) {
                without.push(format!("{folder}/{name} has no tests/cases/{name}*.yaml"));
            }
        }
    }
    assert_none(&without);
}

/// Where metrics are declared.
const METRICS: [&str; 2] = ["src/observe/metrics.rs", "src/observe/metrics/resilience.rs"];

#[test]
fn every_metric_in_the_docs_exists() {
    let named = Regex::new(r"\btollgate_([a-z0-9_]+)").unwrap();
    let metrics: String = METRICS.iter().map(|file| read(&root().join(file))).collect();
    let declared: BTreeSet<String> = Regex::new(r#""(?:tollgate_)?([a-z0-9_]+)""#)
        .unwrap()
        .captures_iter(&metrics)
        .map(|found| found[1].to_owned())
        .collect();
    let mut unknown = BTreeSet::new();
    for file in ["README.md", "conf/reference.md", "CHANGELOG.md"] {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        for found in named.captures_iter(&text) {
            let name = found[1].trim_end_matches('_');
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            if !declared.contains(name) && !declared.contains(base) {
                unknown.insert(format!("{file}: tollgate_{name}"));
            }
        }
    }
    assert_none(&unknown.into_iter().collect::<Vec<_>>());
}

fn shipped_configurations() -> Vec<PathBuf> {
    let mut files = yaml_files("conf");
    files.extend(yaml_files("conf/examples"));
    assert!(!files.is_empty(), "no configuration is shipped");
    files
}

#[test]
fn shipped_configurations_are_good() {
    for path in shipped_configurations() {
        let ran = plan_of(&path, &read(&path)).run(&["check", "--strict", "-c", "tollgate.yaml"]);
        assert_eq!(ran.code, 0, "{}: {ran:#?}", path.display());
    }
}

#[test]
fn shipped_configurations_start() {
    for path in shipped_configurations() {
        let yaml = on_any_port(&read(&path));
        let started = plan_of(&path, &yaml).try_start().map(|gateway| gateway.ready_line());
        assert!(started.is_ok(), "{}: {started:#?}\n{yaml}", path.display());
    }
}

/// A configuration with what it needs: files beside it, and certificates made for it, which no example can bring along.
fn plan_of(path: &Path, yaml: &str) -> Plan {
    let mut plan = Plan::new(yaml);
    for (name, text) in files_beside(path) {
        plan = plan.file(&name, text);
    }
    let authority = Authority::new("example");
    let named = Regex::new(r"\btls/([a-z-]+)\.pem\b").unwrap();
    for found in named.captures_iter(yaml) {
        let name = &found[1];
        if name == "clients" {
            plan = plan.file("tls/clients.pem", authority.pem.clone());
            continue;
        }
        let leaf = authority.leaf(&format!("{name}.example"));
        plan = plan.file(&format!("tls/{name}.pem"), leaf.cert).file(&format!("tls/{name}.key"), leaf.key);
    }
    plan
}

/// The same configuration on ports that are free, owned by nobody else, logging to standard output.
fn on_any_port(text: &str) -> String {
    let mut root: Value = serde_yaml::from_str(text).unwrap();
    let free = || Value::from("127.0.0.1:0");
    if let Some(listeners) = root.get_mut("listeners").and_then(Value::as_mapping_mut) {
        for (_, listener) in listeners.iter_mut() {
            listener["bind"] = free();
        }
    }
    root["admin"]["bind"] = free();
    if let Some(process) = root.get_mut("process").and_then(Value::as_mapping_mut) {
        process.remove("user");
    }
    if let Some(log) = root.get_mut("telemetry").and_then(|telemetry| telemetry.get_mut("access_log")) {
        log["to"] = Value::from("stdout");
    }
    serde_yaml::to_string(&root).unwrap()
}

/// What an example may include or serve: the other files of its folder, and of the folders in it.
fn files_beside(path: &Path) -> Vec<(String, String)> {
    let folder = path.parent().unwrap();
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                waiting.push(entry);
            } else if let Ok(text) = std::fs::read_to_string(&entry) {
                found.push((entry.strip_prefix(folder).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    found
}

#[test]
fn the_readers_of_this_file_read_right() {
    let text = "use crate::a::B;\nuse crate::{c, d::{E, f}, g as h};\n// crate::z is only named\nlet x = crate::i::J;";
    let used: Vec<String> = used_modules(text).into_iter().collect();
    assert_eq!(used, ["a", "c", "d", "g", "i"]);
}
