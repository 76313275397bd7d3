//! `tollgate cache`: what the running gateway keeps, and purges.

use super::ask::{AdminAddress, reason};
use super::output::{data, fail, json};
use super::{Exit, Output};
use crate::admin::Purged;
use crate::cache::store::{Stats, Tier};
use crate::value::counted;
use clap::{Args, Subcommand};
use std::time::Duration;

pub(super) const AFTER: &str = "\
Examples:
  tollgate cache purge --url 'https://api.example.com/v2/orders?page=1'
  tollgate cache purge --tag order:7 --tag orders --soft
  tollgate cache purge --prefix https://api.example.com/v2/
  tollgate cache stats

What was purged is not given again, also when it was on its way at that moment. After a soft purge it is still there: it \
is validated before its next use, and given where stale answers may be.

Exit codes: 0 done, 1 refused, 4 gateway not reached, 5 it wants a token.";

/// How long a purge may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `cache`.
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forget stored answers
    Purge(Purge),
    /// Show what is kept
    Stats(Asked),
}

#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    admin: AdminAddress,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Purge {
    #[command(flatten)]
    of: Of,
    /// Keep them, but validate them before their next use
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Of {
    /// The answers of one address, such as `https://api.example.com/orders?page=1`, whatever they vary by
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// All answers whose address begins so
    #[arg(long, value_name = "URL")]
    prefix: Vec<String>,
    /// All answers with this tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// All answers
    #[arg(long)]
    all: bool,
}

impl Cache {
    pub(super) fn run(&self) -> Exit {
        match &self.what {
            What::Purge(purge) => purge.run(),
            What::Stats(asked) => asked.run(),
        }
    }
}

impl Purge {
    fn run(&self) -> Exit {
        let target = format!("/cache/purge?{}", self.query());
        let (status, body) = match self.asked.admin.send("POST", &target, PATIENCE) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        if status != 200 {
            return fail(&format!("nothing was purged: {}", reason(&body)));
        }
        let purged: Purged = match serde_json::from_str(&body) {
            Ok(purged) => purged,
            Err(error) => return fail(&format!("the answer is not understood: {error}")),
        };
        match self.asked.output {
            Output::Json => json(&purged),
            Output::Human => {
                let how = if purged.soft { " softly" } else { "" };
                data(&format!("purged {}{how}\n", counted(purged.objects, "stored answer")))
            }
        }
    }

    fn query(&self) -> String {
        let of = [("url", &self.of.url), ("prefix", &self.of.prefix), ("tag", &self.of.tag)];
        let mut pairs: Vec<String> = of
            .into_iter()
            .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={}", escaped(value))))
            .collect();
        pairs.extend(self.of.all.then(|| "all=1".to_owned()));
        pairs.extend(self.soft.then(|| "soft=1".to_owned()));
        pairs.join("&")
    }
}

/// For a query string (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

impl Asked {
    fn run(&self) -> Exit {
        let (status, body) = match self.admin.ask("/cache") {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        if status != 200 {
            return fail(&reason(&body));
        }
        let stats: Stats = match serde_json::from_str(&body) {
            Ok(stats) => stats,
            Err(error) => return fail(&format!("what answers at {} is no tollgate: {error}", self.admin)),
        };
        match self.output {
            Output::Json => json(&stats),
            Output::Human => data(&human(&stats)),
        }
    }
}

fn human(stats: &Stats) -> String {
    let line = |name: &str, tier: &Tier| {
        format!(
            "{name:<8} {} of {}, {}, {} evicted, {} purged\n",
            size(tier.bytes),
            size(tier.most),
            counted(tier.objects as usize, "stored answer"),
            tier.evicted,
            tier.purged
        )
    };
    let mut text = line("memory", &stats.memory);
    if let Some(disk) = &stats.disk {
        text.push_str(&line("disk", &disk.tier));
        let errors = disk.read_errors + disk.write_errors;
        text.push_str(&format!(
            "         {}, {} read, {} written, {} skipped, {}\n",
            disk.state,
            disk.read,
            disk.written,
            disk.skipped,
            counted(errors as usize, "error")
        ));
    }
    text.push_str(&format!(
        "filling  {} in {}\n",
        size(stats.filling_bytes as u64),
        counted(stats.asking, "request")
    ));
    let purges: Vec<String> = stats
        .purges
        .iter()
        .filter(|(_, made)| **made > 0)
        .map(|(what, made)| format!("{made} by {what}"))
        .collect();
    if !purges.is_empty() {
        text.push_str(&format!("purges   {}\n", purges.join(", ")));
    }
    text
}

fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let in_units = |unit: u32| bytes as f64 / f64::from(unit);
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} KiB", in_units(1 << 10)),
        10_000_000..=9_999_999_999 => format!("{:.1} MiB", in_units(1 << 20)),
        _ => format!("{:.1} GiB", in_units(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_query_is_escaped() {
        assert_eq!(escaped("https://a.b/c?d=1&e=ä"), "https%3A%2F%2Fa.b%2Fc%3Fd%3D1%26e%3D%C3%A4");
    }
}
