//! A decision on limits in memory: GCRA and quotas, with few counters and with many.

use super::case::{Case, Work, scattered};
use std::hint::black_box;
use std::time::Duration;
use tollgate::store::memory::Memory;
use tollgate::store::{Cycle, Demand, Limit, Rule, TimeZone, Unit};

const DECISIONS: usize = 2_048;
/// Fits into the caches, and does not.
const KEYS: [usize; 2] = [256, 100_000];
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

/// Every kind of decision, on counters that are there already.
pub fn cases() -> Vec<Case> {
    let kinds = [
        ("gcra", What::Rate),
        ("gcra-refused", What::Refused),
        ("gcra-two", What::Both),
        ("quota", What::Quota),
    ];
    let of_kind = |(name, what)| {
        KEYS.map(|keys| Case::new(format!("limits/{name}/{keys}"), DECISIONS, move || Ok(decide(what, keys))))
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

fn decide(what: What, keys: usize) -> Work {
    let (memory, limits) = (Memory::new(4 * keys), limits(what));
    let take = move |number: usize, now: u64| {
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
    let granted = !matches!(what, What::Refused);
    Work::new(move |at| assert!(take(scattered(at) % keys, BEGIN + at as u64 * STEP) == granted))
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
