//! What a decision on limits costs in memory, with few and with many keys, and what a key weighs.
//!
//! ```text
//! cargo bench --bench store                               nanoseconds per decision and bytes per key
//! cargo bench --bench store -- WHAT KEYS DECISIONS        only does the work; WHAT is rate, refused, both or quota
//! ```
//! Instructions of a decision are the difference of two runs of the second form under an instruction counter.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};
use tollgate::store::memory::Memory;
use tollgate::store::{Cycle, Demand, Limit, Rule, TimeZone, Unit};

const DECISIONS: usize = 2_000_000;
const KEYS: [usize; 4] = [1, 256, 100_000, 1_000_000];
/// Microseconds since 1970 at the first decision, and between two.
const BEGIN: u64 = 1_790_000_000_000_000;
const STEP: u64 = 1;

#[derive(Clone, Copy)]
enum What {
    Rate,
    Refused,
    Both,
    Quota,
}

fn main() -> Result<(), String> {
    // `cargo bench` adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |text: &String| text.parse::<usize>().map_err(|error| format!("{text}: {error}"));
    match args.as_slice() {
        [] => report(),
        [weigh, what, keys] if weigh == "weigh" => weigh_keys(what, number(keys)?),
        [what, keys, decisions] => run(what_named(what)?, number(keys)?, number(decisions)?).map(drop),
        _ => Err("usage: store [rate|refused|both|quota KEYS DECISIONS]".to_owned()),
    }
}

fn what_named(name: &str) -> Result<What, String> {
    match name {
        "rate" => Ok(What::Rate),
        "refused" => Ok(What::Refused),
        "both" => Ok(What::Both),
        "quota" => Ok(What::Quota),
        _ => Err(format!("`{name}` is not rate, refused, both or quota")),
    }
}

fn report() -> Result<(), String> {
    println!(
        "{:>9} {:>10} {:>10} {:>12} {:>10}   nanoseconds per decision",
        "keys", "rate", "refused", "two windows", "quota"
    );
    for keys in KEYS {
        let mut columns = Vec::new();
        for what in [What::Rate, What::Refused, What::Both, What::Quota] {
            columns.push(run(what, keys, DECISIONS)?);
        }
        if let [rate, refused, both, quota] = columns.as_slice() {
            println!("{keys:>9} {rate:>10.1} {refused:>10.1} {both:>12.1} {quota:>10.1}");
        }
    }
    // Each in a process of its own, so that none fills what another has left.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    for (what, keys) in [("rate", "200000"), ("rate", "1000000"), ("quota", "1000000")] {
        let status = Command::new(&this).args(["weigh", what, keys]).status();
        status.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn rate(name: &str, count: u32) -> Limit {
    Limit::new(name.into(), Rule::Rate { count, period: Duration::from_secs(60), burst: count })
}

fn quota(count: u32) -> Limit {
    let cycle = Cycle::Calendar(Unit::Month, TimeZone("Europe/Berlin".into()));
    Limit::new("plan free 1".into(), Rule::Quota { count: u64::from(count), cycle, soft: false })
}

fn limits(what: What) -> Vec<Limit> {
    match what {
        What::Rate => vec![rate("route api.read 0", 1_000_000_000)],
        What::Refused => vec![rate("route api.read 0", 1)],
        What::Both => vec![rate("route api.read 0", 1_000_000_000), rate("route api.read 1", 900_000_000)],
        What::Quota => vec![quota(u32::MAX)],
    }
}

fn key(number: usize) -> [u8; 16] {
    (number as u128).to_be_bytes()
}

/// Gives nanoseconds per decision, on counters that are there already.
fn run(what: What, keys: usize, decisions: usize) -> Result<f64, String> {
    let (memory, limits) = (Memory::new(4 * keys), limits(what));
    let take = |number: usize, now: u64| {
        let key = key(number);
        let demand = |limit| Demand { limit, key: black_box(&key), cost: 1, shadow: false };
        match limits.as_slice() {
            [one] => memory.take(now, &[demand(one)]).iter().all(|outcome| outcome.granted),
            [one, two] => memory.take(now, &[demand(one), demand(two)]).iter().all(|outcome| outcome.granted),
            _ => false,
        }
    };
    for number in 0..keys {
        take(number, BEGIN);
    }
    let start = Instant::now();
    let mut granted = 0;
    for at in 0..decisions {
        granted += usize::from(take(scattered(at) % keys, BEGIN + at as u64 * STEP));
    }
    let elapsed = start.elapsed();
    let expected = if matches!(what, What::Refused) { 0 } else { decisions };
    if granted != expected {
        return Err(format!("{granted} of {decisions} were granted, and not {expected}"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    Ok(elapsed.as_nanos() as f64 / decisions.max(1) as f64)
}

/// Prints how much larger the process is with that many keys than without.
fn weigh_keys(what: &str, keys: usize) -> Result<(), String> {
    let (memory, limits) = (Memory::new(1_000_000), limits(what_named(what)?));
    let before = resident()?;
    for limit in &limits {
        for number in 0..keys {
            black_box(memory.take(BEGIN, &[Demand { limit, key: &key(number), cost: 1, shadow: false }]));
        }
    }
    let (after, held) = (resident()?, memory.keys());
    println!("{what}: {held} keys, {} bytes each", after.saturating_sub(before) / held.max(1));
    Ok(())
}

/// Bytes of memory in use (Linux).
fn resident() -> Result<usize, String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| "unexpected /proc/self/statm".to_owned())
}

/// Numbers in no order that caches would like, the same in every run.
fn scattered(at: usize) -> usize {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}
