//! What things weigh: bytes of the process for each counter of a limit, each cached answer, each route.
//!
//! Each in a process of its own, so that none fills what another has left. The allocator is the one of the binary that is
//! shipped.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

// Reads documents, too.
#[expect(dead_code, reason = "the other bench uses all of it")]
#[path = "costs/documents.rs"]
mod documents;
#[expect(dead_code, reason = "the other bench uses all of it")]
#[path = "costs/case.rs"]
mod case;

use bytes::Bytes;
use case::text;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response};
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tollgate::cache::memory::Memory as Answers;
use tollgate::cache::{Body, Facts, Stored};
use tollgate::store::memory::Memory as Counters;
use tollgate::store::{Cycle, Demand, Limit, Rule, TimeZone, Unit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WEIGHED: [(&str, usize); 7] = [
    ("gcra", 200_000),
    ("gcra", 1_000_000),
    ("quota", 1_000_000),
    ("answer-0", 200_000),
    ("answer-1000", 200_000),
    ("answer-10000", 50_000),
    ("route", 10_000),
];
const NOW: u64 = 1_790_000_000_000;

fn main() -> Result<(), String> {
    // `cargo bench` adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.as_slice() {
        [what, number] if number.parse::<usize>().is_ok() => weigh(what, number.parse().map_err(text)?),
        _ => report(),
    }
}

fn report() -> Result<(), String> {
    println!("{:14} {:>9} {:>12}", "", "number", "bytes each");
    let this = std::env::current_exe().map_err(text)?;
    for (what, number) in WEIGHED {
        Command::new(&this).args([what, &number.to_string()]).status().map_err(text)?;
    }
    Ok(())
}

/// Prints how much larger the process is with so many.
fn weigh(what: &str, number: usize) -> Result<(), String> {
    let before = resident()?;
    let held: Box<dyn std::any::Any> = match what.split_once('-') {
        Some((_, len)) => Box::new(answers(number, len.parse().map_err(text)?)),
        None if what == "route" => Box::new(documents::built(&documents::of_routes(number)?)?.snapshot),
        None => Box::new(counters(number, &limit(what))),
    };
    let grown = resident()?.saturating_sub(before);
    println!("{what:14} {number:>9} {:>12}", grown / number.max(1));
    drop(black_box(held));
    Ok(())
}

fn limit(what: &str) -> Limit {
    let cycle = Cycle::Calendar(Unit::Month, TimeZone("Europe/Berlin".into()));
    match what {
        "quota" => Limit::new("plan free 1".into(), Rule::Quota { count: u64::MAX, cycle, soft: false }),
        _ => {
            let rule = Rule::Rate { count: 1_000_000, period: Duration::from_secs(60), burst: 1_000_000 };
            Limit::new("route api.read 0".into(), rule)
        }
    }
}

fn counters(number: usize, limit: &Limit) -> Counters {
    let counters = Counters::new(2 * number);
    for key in 0..number as u128 {
        counters.take(NOW * 1000, &[Demand { limit, key: &key.to_be_bytes(), cost: 1, shadow: false }]);
    }
    counters
}

fn answers(number: usize, len: usize) -> Answers {
    let answers = Answers::new(usize::MAX);
    for at in 0..number {
        let name = format!("shop.read https api.example.com /v2/orders/{at}?expand=lines");
        answers.put(name.as_bytes(), answer(at, len), NOW);
    }
    answers
}

fn answer(at: usize, len: usize) -> Arc<Stored<Body>> {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers.insert(ETAG, HeaderValue::from_static("\"33a64df551425fcc55e4d42a148795d9\""));
    let facts = Facts { received: NOW, lifetime: 60_000, ..Facts::default() };
    let (body, url) =
        (Body::whole(Bytes::from(vec![1; len])), format!("https://api.example.com/v2/orders/{at}"));
    let mut stored = Stored::new(head, body, facts, &url);
    stored.tags = Box::new([format!("order:{at}").into()]);
    Arc::new(stored)
}

/// Bytes of memory in use (Linux).
fn resident() -> Result<usize, String> {
    let written = std::fs::read_to_string("/proc/self/statm").map_err(text)?;
    let pages = written.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| "unexpected /proc/self/statm".to_owned())
}
