//! Runs `tollgate check` on every `tests/config/*.yaml` and compares what it says, word for word.
//!
//! A file is a document, then parts that begin with a line of dashes:
//!
//! ```text
//! version: 1
//! …
//! ---- file conf.d/a.yaml        another file beside it, up to the next line of dashes
//! ---- env NAME=value            set while checking
//! ---- args --strict             further arguments
//! ----                           the last part: what is expected
//! exit 3
//! error[TG1203]: …
//! ```
//!
//! `UPDATE=1 cargo test config` rewrites the last part; `CASE=name` chooses files.

use crate::cases::yaml_files;
use crate::harness::{Ran, tollgate_in};

/// One file, taken apart.
#[derive(Default)]
struct Fixture {
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    /// Everything up to and including the last line of dashes.
    given: String,
    expected: String,
}

impl Fixture {
    fn parse(text: &str) -> Fixture {
        let mut fixture =
            Fixture { files: vec![("tollgate.yaml".to_owned(), String::new())], ..Fixture::default() };
        let mut lines = text.split_inclusive('\n');
        for line in lines.by_ref() {
            fixture.given.push_str(line);
            // Five dashes begin something of their own: PEM.
            let part = line.trim_end().strip_prefix("----").filter(|part| !part.starts_with('-'));
            match part.map(str::trim) {
                None => fixture.files.last_mut().unwrap().1.push_str(line),
                Some("") => break,
                Some(part) => fixture.part(part),
            }
        }
        assert!(fixture.given.ends_with("----\n"), "no line of dashes ends the given part");
        fixture.expected = lines.collect();
        fixture
    }

    fn part(&mut self, part: &str) {
        match part.split_once(' ') {
            Some(("file", name)) => self.files.push((name.to_owned(), String::new())),
            Some(("args", args)) => self.args.extend(args.split(' ').map(str::to_owned)),
            Some(("env", pair)) => {
                let (name, value) = pair.split_once('=').expect("NAME=value");
                self.env.push((name.to_owned(), value.to_owned()));
            }
            _ => panic!("unknown part `---- {part}`"),
        }
    }

    fn check(&self) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &self.files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut args = vec!["check", "-c", "tollgate.yaml", "--no-color"];
        args.extend(self.args.iter().map(String::as_str));
        let ran = tollgate_in(dir.path(), &self.env, &args);
        format!("exit {}\n{}{}", ran.code, ran.stderr, ran.stdout)
    }
}

#[test]
fn config_findings() {
    let (filter, update) = (std::env::var("CASE").unwrap_or_default(), std::env::var_os("UPDATE").is_some());
    let mut failures = Vec::new();
    for path in yaml_files("tests/config") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&filter) {
            continue;
        }
        let fixture = Fixture::parse(&std::fs::read_to_string(&path).unwrap());
        let said = fixture.check();
        if update {
            std::fs::write(&path, fixture.given + &said).unwrap();
        } else if said != fixture.expected {
            failures.push(format!("{name}\n--- expected\n{}--- said\n{said}", fixture.expected));
        }
    }
    assert!(
        failures.is_empty(),
        "{} files differ (UPDATE=1 rewrites)\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Checks a text of any bytes; whatever it is, the command must answer in time, in words.
fn check(text: impl AsRef<[u8]>) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.yaml"), text).unwrap();
    let ran = tollgate_in(dir.path(), &[], &["check", "-c", "tollgate.yaml", "--no-color"]);
    assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
    ran
}

/// A position such as `tollgate.yaml:3:7`.
fn has_position(ran: &Ran) -> bool {
    regex::Regex::new(r"tollgate\.yaml:[0-9]+:[0-9]+").unwrap().is_match(&(ran.stderr.clone() + &ran.stdout))
}

#[test]
fn malformed_yaml_ends_in_exit_3_with_a_position() {
    let texts: &[&str] = &[
        "version: [1",
        "version: {1",
        "version: \"1",
        "version: '1",
        "version: 1\n\tlisteners: {}",
        "version: 1\nlisteners:\n  web:\n bind: x",
        "version: 1\n- a\n",
        "version: 1\nlisteners: *nowhere",
        "version: &a 1\nlisteners: &a {}\nx: ]",
        "version: 1\n%YAML 1.2\n---\n",
        "? [a, b]\n: c\n",
        "version: \"\\q\"",
        "version: |\n  a\n b",
        "version: 1\n@x: 1",
        "version: 1\n`x`: 1",
        "key: a: b",
        "- a\n- b\n",
        "just words",
        "42",
        "version: 1\u{0}",
        "version: \u{1b}[31m1",
        "version: !!python/object:os.system 1",
        "version: 1\n---\nversion: 1\n",
        "<<: { version: 1 }\n",
    ];
    for text in texts {
        let ran = check(text);
        assert_eq!(ran.code, 3, "{text:?}: {ran:#?}");
        assert!(has_position(&ran), "{text:?}: {ran:#?}");
    }
}

#[test]
fn nothing_at_all_is_refused() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "null\n"] {
        assert_eq!(check(text).code, 3, "{text:?}");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    for bytes in
        [&b"\xff\xfe\x00v\x00"[..], b"version: \xc3\x28", b"\x7fELF\x02\x01\x01", b"\x80\x80\x80\x80"]
    {
        assert_eq!(check(bytes).code, 3, "{bytes:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_error() {
    let ran = check(format!("\u{feff}{SMALLEST}"));
    assert_eq!(ran.code, 0, "{ran:#?}");
}

#[test]
fn windows_line_ends_are_no_error() {
    let ran = check(SMALLEST.replace('\n', "\r\n"));
    assert_eq!(ran.code, 0, "{ran:#?}");
}

/// Nine levels of nine references: 387 million nodes when expanded.
#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let inside = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{inside}]\n"));
    }
    let ran = check(text);
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(has_position(&ran), "{ran:#?}");
}

#[test]
fn deep_nesting_is_refused() {
    for (open, depth) in [("[", 100_000), ("{a: ", 100_000), ("[", 200), ("- ", 10_000), ("? ", 10_000)] {
        let ran = check(format!("version: 1\nlisteners:\n  {}", open.repeat(depth)));
        assert_eq!(
            ran.code,
            3,
            "{depth} times {open:?}: {}",
            ran.stderr.chars().take(2000).collect::<String>()
        );
    }
}

#[test]
fn a_hundred_mebibytes_are_refused_without_being_read_into_the_parser() {
    let ran = check(vec![b'#'; 100 << 20]);
    assert_eq!(ran.code, 3, "{ran:#?}");
}

#[test]
fn the_report_is_bounded() {
    let unknown: String = (0..100_000).map(|n| format!("unknown{n}: 1\n")).collect();
    let ran = check(format!("version: 1\n{unknown}"));
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.len() + ran.stdout.len() < 64 << 20);
}

#[test]
fn a_missing_file_a_folder_and_a_missing_argument() {
    let dir = tempfile::tempdir().unwrap();
    let missing = tollgate_in(dir.path(), &[], &["check", "-c", "nowhere.yaml"]);
    assert_eq!(missing.code, 3, "{missing:#?}");
    assert!(missing.stderr.contains("nowhere.yaml"), "{missing:#?}");
    assert_eq!(tollgate_in(dir.path(), &[], &["check", "-c", "."]).code, 3);
    assert_eq!(tollgate_in(dir.path(), &[], &["check", "-c"]).code, 2);
    assert_eq!(tollgate_in(dir.path(), &[], &["chekc"]).code, 2);
}

#[test]
fn a_file_that_includes_itself_ends() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.yaml"), format!("include: [\"*.yaml\"]\n{SMALLEST}")).unwrap();
    let ran = tollgate_in(dir.path(), &[], &["check", "-c", "tollgate.yaml"]);
    assert!(matches!(ran.code, 0 | 3), "{ran:#?}");
}

const SMALLEST: &str = "\
version: 1
listeners: { web: { bind: 127.0.0.1:8080 } }
upstreams: { app: { targets: [127.0.0.1:3000] } }
apis:      { app: { auth: public, routes: { all: { match: /**, to: app } } } }
";

#[test]
fn the_smallest_file_is_good() {
    let ran = check(SMALLEST);
    assert_eq!((ran.code, ran.stderr.contains("warning")), (0, false), "{ran:#?}");
}

#[test]
fn findings_as_json_and_sarif() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.yaml"), format!("{SMALLEST}burts: 1\n")).unwrap();
    let json = tollgate_in(dir.path(), &[], &["check", "-c", "tollgate.yaml", "--format", "json"]);
    assert_eq!(json.code, 3, "{json:#?}");
    assert!(json.json().to_string().contains("TG1203"), "{json:#?}");
    let sarif = tollgate_in(dir.path(), &[], &["check", "-c", "tollgate.yaml", "--format", "sarif"]);
    let result = &sarif.json()["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "TG1203", "{sarif:#?}");
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!(
        (region["startLine"].as_u64(), region["startColumn"].as_u64()),
        (Some(5), Some(1)),
        "{sarif:#?}"
    );
}

/// Whoever has never seen it learns from the help of each command what it is for and how it is called.
#[test]
fn every_command_teaches() {
    let dir = tempfile::tempdir().unwrap();
    let help = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let ran = tollgate_in(dir.path(), &[], &words);
        assert_eq!(ran.code, 0, "{command}: {ran:#?}");
        ran.stdout
    };
    for command in "run check explain routes config reload upgrade diff split cache key upstream status"
        .split_whitespace()
    {
        let text = help(command);
        assert!(text.contains(&format!("  tollgate {command}")), "`{command}` has no example:\n{text}");
    }
    let all = help("");
    assert!(all.contains("tollgate config init > tollgate.yaml") && all.contains("TOLLGATE_ADMIN"), "{all}");
    // A line that the author has broken is broken once more where the terminal is narrower.
    let orphan = |text: &str| text.lines().any(|line| line.len() > 100);
    assert!(!orphan(&all), "{all}");
}

#[test]
fn names_that_do_not_exist_are_no_empty_answers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.yaml"), SMALLEST).unwrap();
    for (args, said) in [
        (&["routes", "--api", "ap"][..], "there is no API `ap`; did you mean `app`?"),
        (&["config", "show", "--route", "app.al"], "there is no route `app.al`; did you mean `app.all`?"),
        (&["config", "show", "--route", "x"], "there is no route `x`; there is app.all"),
    ] {
        let ran = tollgate_in(dir.path(), &[], &[args, &["-c", "tollgate.yaml"]].concat());
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains(said), "{args:?}: {ran:#?}");
    }
}
