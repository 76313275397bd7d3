//! The process's own log: lines on stderr, one for each event that an operator should know of.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;

/// Writes a line to stderr; a stderr that is gone is no reason to stop.
pub fn say(line: std::fmt::Arguments<'_>) {
    let mut text = line.to_string();
    text.push('\n');
    drop(std::io::stderr().write_all(text.as_bytes()));
}

struct Stderr {
    ours: LevelFilter,
    engine: LevelFilter,
    journal: bool,
}

/// Starts logging. `verbose` counts the `-v`s: none shows what we say from "info", one also our "debug" and the engine's
/// warnings, two everything. Under systemd lines carry their priority (sd-daemon(3)).
pub fn init(verbose: u8) {
    let (ours, engine) = match verbose {
        // The engine reports every client that goes away as an error; the access log knows better.
        0 => (LevelFilter::Info, LevelFilter::Off),
        1 => (LevelFilter::Debug, LevelFilter::Warn),
        _ => (LevelFilter::Trace, LevelFilter::Trace),
    };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    log::set_max_level(ours.max(engine));
    // Fails only when a logger is there already, which then goes on.
    drop(log::set_boxed_logger(Box::new(Stderr { ours, engine, journal })));
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let limit = if metadata.target().starts_with("tollgate") { self.ours } else { self.engine };
        metadata.level() <= limit
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (priority, word) = match record.level() {
            Level::Error => ("<3>", "error"),
            Level::Warn => ("<4>", "warning"),
            Level::Info => ("<6>", "info"),
            Level::Debug | Level::Trace => ("<7>", "debug"),
        };
        let priority = if self.journal { priority } else { "" };
        say(format_args!("{priority}{word}: {}", record.args()));
    }

    fn flush(&self) {}
}
