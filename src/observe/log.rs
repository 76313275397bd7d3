//! The process's own log: lines on stderr, one for each event that an operator should know of.

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;
use std::io::Write;
use std::sync::LazyLock;

/// Whether stderr is the journal, whose lines may begin with a priority: `$JOURNAL_STREAM` holds the device and inode of the
/// stream (systemd.exec(5)). It is inherited by children whose stderr is something else, hence the look at stderr itself.
static JOURNAL: LazyLock<bool> = LazyLock::new(|| {
    let Some(told) = std::env::var_os("JOURNAL_STREAM") else { return false };
    fstat(std::io::stderr()).is_ok_and(|stat| told == *format!("{}:{}", stat.st_dev, stat.st_ino))
});

/// Writes a line, or several, to stderr; a stderr that is gone is no reason to stop. The journal gets the priority that the
/// first word tells (sd-daemon(3)).
pub fn say(text: std::fmt::Arguments<'_>) {
    let mut text = text.to_string();
    if *JOURNAL {
        text = prioritised(&text);
    }
    text.push('\n');
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Each line with its priority, since the journal takes each for an entry of its own. What follows an error belongs to it.
fn prioritised(text: &str) -> String {
    let mut priority = "<6>";
    let lines = text.lines().map(|line| {
        priority = match line.split([':', '[']).next() {
            Some("error") => "<3>",
            Some("warning") => "<4>",
            Some("info") => "<6>",
            Some("debug") => "<7>",
            _ => priority,
        };
        [priority, line].concat()
    });
    lines.collect::<Vec<_>>().join("\n")
}

struct Stderr {
    ours: LevelFilter,
    engine: LevelFilter,
}

/// Starts logging. `verbose` counts the `-v`s: none shows what we say from "info", one also our "debug" and the engine's
/// warnings, two everything.
pub fn init(verbose: u8) {
    let (ours, engine) = match verbose {
        // The engine reports every client that goes away as an error; the access log knows better.
        0 => (LevelFilter::Info, LevelFilter::Off),
        1 => (LevelFilter::Debug, LevelFilter::Warn),
        _ => (LevelFilter::Trace, LevelFilter::Trace),
    };
    log::set_max_level(ours.max(engine));
    // Fails only when a logger is there already, which then goes on.
    drop(log::set_boxed_logger(Box::new(Stderr { ours, engine })));
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
        let word = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        say(format_args!("{word}: {}", record.args()));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_for_the_journal_has_its_priority() {
        assert_eq!(prioritised("warning: one"), "<4>warning: one");
        assert_eq!(prioritised("listening web 127.0.0.1:80"), "<6>listening web 127.0.0.1:80");
        let finding = "error[TG1201]: a map\n  |\n2 | oops\nwarning[TG1]: b\n  = help: c";
        let told = "<3>error[TG1201]: a map\n<3>  |\n<3>2 | oops\n<4>warning[TG1]: b\n<4>  = help: c";
        assert_eq!(prioritised(finding), told);
    }
}
