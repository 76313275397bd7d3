//! The load tests themselves: that they judge right, and that each can be started.

use std::path::Path;
use std::process::{Command, Output};

const COMMANDS: [&str; 7] =
    ["run", "soak", "upgrades", "instructions", "idle-memory", "big-transfer", "abuse"];

fn loadtest(program: &str, argument: &str) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest").join(program);
    Command::new("python3")
        .arg(path)
        .arg(argument)
        .output()
        .expect("python3 is needed; tests/run installs it")
}

#[test]
fn figures_verdicts_and_plots_are_right() {
    let ran = loadtest("selftest.py", "--quiet");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.contains("Ran ") && !told.contains("Ran 0 tests"), "{told}");
}

#[test]
fn every_command_says_how_to_use_it() {
    for command in COMMANDS {
        let ran = loadtest(command, "--help");
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && told.contains(&format!("usage: {command}")), "{command}: {ran:?}");
    }
}

#[test]
fn every_scenario_has_the_reference_and_tollgate() {
    let ran = loadtest("run", "--list");
    let told = String::from_utf8_lossy(&ran.stdout);
    let takers: Vec<&str> = told.lines().filter(|line| line.starts_with(' ')).map(str::trim).collect();
    assert!(takers.len() >= 14, "{told}");
    assert!(takers.iter().all(|names| names.starts_with("bare, tollgate")), "{told}");
}
