//! Where a command's words go: data to stdout, talk to stderr.

use super::{Exit, Global};
use crate::config::de::did_you_mean;
use crate::config::report::{Format, report};
use crate::value::{Issues, Sources};
use std::io::{IsTerminal, Write, stderr, stdout};

/// Writes data to stdout. Whoever stopped reading has seen enough: that is no failure.
pub(super) fn data(text: &str) -> Exit {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            talk(&format!("error: stdout cannot be written: {error}"));
            Exit::Failed
        }
        _ => Exit::Ok,
    }
}

/// Writes JSON to stdout.
pub(super) fn json(value: &impl serde::Serialize) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(text) => data(&(text + "\n")),
        Err(error) => fail(&error.to_string()),
    }
}

/// Writes a line to stderr.
pub(super) fn talk(line: &str) {
    crate::observe::log::say(format_args!("{line}"));
}

/// Says what failed.
pub(super) fn fail(what: &str) -> Exit {
    talk(&format!("error: {what}"));
    Exit::Failed
}

/// Says that there is no such thing, and what there is.
pub(super) fn nothing<'k>(kind: &str, name: &str, known: impl Iterator<Item = &'k str>) -> Exit {
    let known: Vec<&str> = known.collect();
    fail(&match (did_you_mean(name, known.iter().copied()), known.as_slice()) {
        (Some(near), _) => format!("there is no {kind} `{name}`; did you mean `{near}`?"),
        (None, []) => format!("there is no {kind} `{name}`, nor any other"),
        (None, known) => format!("there is no {kind} `{name}`; there is {}", known.join(", ")),
    })
}

/// Reports findings for people on stderr.
pub(super) fn findings(issues: &Issues, sources: &Sources, global: &Global, tail: &str) {
    let shown = match global.quiet {
        true => Issues(issues.0.iter().filter(|issue| issue.is_error()).cloned().collect()),
        false => issues.clone(),
    };
    let color = colored(global, stderr().is_terminal());
    let mut text = Vec::new();
    // Memory does not fail.
    drop(report(&mut text, &shown, sources, &Format::Human { color }, tail));
    let text = String::from_utf8_lossy(&text);
    if !text.trim().is_empty() {
        talk(text.trim_end());
    }
}

/// Whether to use colours on a terminal.
pub(super) fn colored(global: &Global, terminal: bool) -> bool {
    terminal && !global.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
