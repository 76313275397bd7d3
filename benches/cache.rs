//! How the cache does when it is full, purged, and asked by several threads at once, and how well it chooses what to keep.
//!
//! What one look-up costs is in `costs`, what an answer weighs in `weights`.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "it reports to a person")]

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Response};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tollgate::cache::memory::Memory;
use tollgate::cache::purge::{How, Purge, What};
use tollgate::cache::{Body, Facts, Look, Stored};

const OBJECTS: usize = 100_000;
const ROUNDS: usize = 2_000_000;
const NOW: u64 = 1_790_000_000_000;

fn main() {
    println!("{OBJECTS} answers of 1,000 bytes in memory");
    let memory = Memory::new(1 << 30);
    let put = time(OBJECTS, |at| assert!(memory.put(&name(at), answer(at, 1000), NOW)));
    println!("{put:>10.0} ns  put");
    println!(
        "{:>10.0} ns  put in place of another",
        time(OBJECTS, |at| assert!(memory.put(&name(at), answer(at, 1000), NOW)))
    );
    println!(
        "{:>10.0} ns  an answer made, of which put takes its share",
        time(OBJECTS, |at| drop(black_box(answer(at, 1000))))
    );
    let names: Vec<_> = (0..OBJECTS).map(name).collect();
    let headers = HeaderMap::new();
    let get = |at: usize| {
        let name = names.get(scattered(at) % names.len()).map(Vec::as_slice).unwrap_or_default();
        matches!(black_box(memory.get(name, &headers)), Look::Hit(_))
    };
    println!("{:>10.0} ns  hit", time(ROUNDS, |at| assert!(get(at))));
    for threads in [2, 4] {
        println!("{:>10.0} ns  hit, {threads} threads at once", threaded(threads, |at| assert!(get(at))));
    }
    let full = Memory::new(OBJECTS * 1000);
    let evicting = time(4 * OBJECTS, |at| assert!(full.put(&name(at), answer(at, 1000), NOW)));
    println!("{evicting:>10.0} ns  put into a full cache");
    report_purges(&memory);
    report_choice();
}

fn report_purges(memory: &Memory) {
    for how in [How::Expire, How::Remove] {
        let begin = Instant::now();
        let met = memory.purge(&Purge { what: What::Tag("even".into()), how });
        println!("{:>10.2} ms  purge of {met} by tag, {how:?}", millis(begin));
    }
    let begin = Instant::now();
    let met = memory.purge(&Purge { what: What::Url(url(1).into()), how: How::Remove });
    println!("{:>10.3} ms  purge of {met} by address", millis(begin));
    let begin = Instant::now();
    let met =
        memory.purge(&Purge { what: What::Prefix("https://api.example.com/".into()), how: How::Remove });
    println!("{:>10.2} ms  purge of {met} by prefix", millis(begin));
}

/// Hit ratios on requests whose popularity follows Zipf's law, against least recently used.
fn report_choice() {
    println!("hit ratio (least recently used): {OBJECTS} objects asked for {ROUNDS} times");
    println!("{:>28} {:>16} {:>16} {:>16}", "room for", "1 %", "5 %", "20 %");
    let traces = [
        ("Zipf 0.7", 0.7, 0),
        ("Zipf 0.9", 0.9, 0),
        ("Zipf 1.1", 1.1, 0),
        ("Zipf 0.9, a third once only", 0.9, 3),
    ];
    for (label, exponent, scan) in traces {
        let trace = trace(exponent, scan);
        let ratios = [100, 20, 5].map(|share| {
            let room = OBJECTS / share;
            format!(
                "{:.1} % ({:.1} %)",
                100.0 * kept(&trace, room),
                100.0 * least_recently_used(&trace, room)
            )
        });
        println!("{label:>28} {:>16} {:>16} {:>16}", ratios[0], ratios[1], ratios[2]);
    }
}

fn trace(exponent: f64, scan: usize) -> Vec<usize> {
    let mut sums: Vec<f64> = Vec::with_capacity(OBJECTS);
    for rank in 1..=OBJECTS {
        let before = sums.last().copied().unwrap_or_default();
        sums.push(before + 1.0 / (rank as f64).powf(exponent));
    }
    let all = sums.last().copied().unwrap_or_default();
    let one = |at: usize| {
        if scan > 0 && at.is_multiple_of(scan) {
            return OBJECTS + at;
        }
        let chance = scattered(at + 7) as f64 / (usize::MAX >> 20) as f64;
        sums.partition_point(|sum| *sum < chance * all)
    };
    (0..ROUNDS).map(one).collect()
}

/// All objects of the same weight, so that room can be told as a number of them.
fn kept(trace: &[usize], room: usize) -> f64 {
    let name = |at: usize| format!("{at:020}").into_bytes();
    let one = Memory::new(1 << 30);
    assert!(one.put(&name(0), bare(), NOW));
    let memory = Memory::new(one.held().bytes * room);
    let headers = HeaderMap::new();
    let mut hits = 0;
    for at in trace {
        match memory.get(&name(*at), &headers) {
            Look::Hit(_) => hits += 1,
            _ => assert!(memory.put(&name(*at), bare(), NOW)),
        }
    }
    f64::from(hits) / trace.len() as f64
}

fn least_recently_used(trace: &[usize], room: usize) -> f64 {
    let (mut used, mut order, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
    for (time, at) in trace.iter().enumerate() {
        if let Some(before) = used.insert(*at, time) {
            hits += 1;
            order.remove(&before);
        } else if used.len() > room
            && let Some((_, oldest)) = order.pop_first()
        {
            used.remove(&oldest);
        }
        order.insert(time, *at);
    }
    f64::from(hits) / trace.len() as f64
}

fn name(at: usize) -> Vec<u8> {
    format!("shop.read https api.example.com /v2/orders/{at}?expand=lines").into_bytes()
}

fn url(at: usize) -> String {
    format!("https://api.example.com/v2/orders/{at}?expand=lines")
}

fn answer(at: usize, len: usize) -> Arc<Stored<Body>> {
    Arc::new(stored(at, Body::whole(Bytes::from(vec![1; len]))))
}

fn stored(at: usize, body: Body) -> Stored<Body> {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers.insert(ETAG, HeaderValue::from_static("\"33a64df551425fcc55e4d42a148795d9\""));
    let facts = Facts { received: NOW, lifetime: 60_000, ..Facts::default() };
    let mut stored = Stored::new(head, body, facts, &url(at));
    let parity = if at.is_multiple_of(2) { "even" } else { "odd" };
    stored.tags = Box::new([parity.into(), format!("order:{at}").into()]);
    stored
}

fn bare() -> Arc<Stored<Body>> {
    let facts = Facts { received: NOW, lifetime: 60_000, ..Facts::default() };
    Arc::new(Stored::new(Response::new(()).into_parts().0, Body::whole(Bytes::new()), facts, ""))
}

/// Nanoseconds each.
fn time(rounds: usize, mut run: impl FnMut(usize)) -> f64 {
    let begin = Instant::now();
    (0..rounds).for_each(&mut run);
    begin.elapsed().as_nanos() as f64 / rounds as f64
}

/// Nanoseconds each on every thread, all running at once.
fn threaded(threads: usize, run: impl Fn(usize) + Sync) -> f64 {
    let took: Vec<Duration> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || {
                    let begin = Instant::now();
                    (0..ROUNDS).for_each(|at| run(at + thread * 977));
                    begin.elapsed()
                })
            })
            .collect();
        running.into_iter().filter_map(|running| running.join().ok()).collect()
    });
    let all: Duration = took.iter().sum();
    all.as_nanos() as f64 / (took.len().max(1) * ROUNDS) as f64
}

fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

/// Numbers in no order that caches would like, the same in every run.
fn scattered(at: usize) -> usize {
    let mixed = (at ^ (at >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) >> 20
}
