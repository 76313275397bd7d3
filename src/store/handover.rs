//! Counters that outlive the process: what a successor takes over.
//!
//! Counters of rates are known only by keyed hashes of limit and key, so the successor must hash with the same key: the
//! [`Seed`](super::seed::Seed).

use super::journal::{decode, encode};
use super::memory::Memory;
use super::rates::Counter;
use std::collections::HashSet;
use std::sync::Arc;

/// Bytes of one counter of a rate.
const RATE: usize = 24;

/// Everything that `memory` has counted and that still counts at `now`, in bytes for [`import`].
pub fn export(memory: &Memory, now: u64) -> Vec<u8> {
    let mut rates = Vec::new();
    memory.each_rate(now, |counter| {
        rates.extend_from_slice(&counter.high.to_le_bytes());
        rates.extend_from_slice(&counter.micros.to_le_bytes());
        rates.extend_from_slice(&counter.low.to_le_bytes());
        rates.extend_from_slice(&counter.part.to_le_bytes());
    });
    let mut bytes = ((rates.len() / RATE) as u64).to_le_bytes().to_vec();
    bytes.append(&mut rates);
    memory.each_quota(now, |entry| encode(entry, &mut bytes));
    bytes
}

/// Takes over what another process [exported](export). Gives how many counters there were, or nothing when the bytes are
/// damaged; what could be read counts.
pub fn import(memory: &Memory, bytes: &[u8], now: u64) -> Option<usize> {
    let (count, rest) = bytes.split_first_chunk()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (rates, mut quotas) = rest.split_at_checked(count.checked_mul(RATE)?)?;
    for bytes in rates.chunks_exact(RATE) {
        memory.put_rate(rate(bytes)?, now);
    }
    let (mut names, mut taken): (HashSet<Arc<str>>, usize) = (HashSet::new(), count);
    while !quotas.is_empty() {
        let (entry, behind) = decode(quotas)?;
        // Many counters share the name of a limit.
        let name = names.get(entry.name).cloned().unwrap_or_else(|| entry.name.into());
        names.insert(name.clone());
        memory.restore(&name, &entry, now);
        (quotas, taken) = (behind, taken + 1);
    }
    Some(taken)
}

fn rate(bytes: &[u8]) -> Option<Counter> {
    let (high, bytes) = bytes.split_first_chunk()?;
    let (micros, bytes) = bytes.split_first_chunk()?;
    let (low, part) = bytes.split_first_chunk()?;
    Some(Counter {
        high: u64::from_le_bytes(*high),
        micros: u64::from_le_bytes(*micros),
        low: u32::from_le_bytes(*low),
        part: u32::from_le_bytes(*part.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::now;
    use crate::store::{Cycle, Demand, Limit, Rule, TimeZone, Unit};
    use std::time::Duration;

    fn limits() -> [Limit; 2] {
        let cycle = Cycle::Calendar(Unit::Month, TimeZone("UTC".into()));
        [
            Limit::new("rate".into(), Rule::Rate { count: 10, period: Duration::from_secs(3600), burst: 10 }),
            Limit::new("quota".into(), Rule::Quota { count: 100, cycle, soft: false }),
        ]
    }

    fn left(memory: &Memory, limits: &[Limit; 2], key: &[u8], cost: u32, now: u64) -> Vec<u64> {
        let demands = limits.each_ref().map(|limit| Demand { limit, key, cost, shadow: false });
        memory.take(now, &demands).iter().map(|outcome| outcome.remaining).collect()
    }

    #[test]
    fn what_was_counted_is_taken_over_whatever_the_size_of_the_store() {
        let (limits, now) = (limits(), now());
        let before = Memory::new(1_000);
        for key in 0..100_u32 {
            left(&before, &limits, &key.to_le_bytes(), 3, now);
        }
        let bytes = export(&before, now);
        let after = Memory::new(1_000_000);
        assert_eq!(import(&after, &bytes, now), Some(200));
        for key in 0..100_u32 {
            assert_eq!(left(&after, &limits, &key.to_le_bytes(), 1, now), [6, 96]);
        }
        assert_eq!(left(&after, &limits, b"other", 1, now), [9, 99]);
    }

    #[test]
    fn damage_is_noticed_and_does_no_harm() {
        let (limits, now) = (limits(), now());
        let before = Memory::new(1_000);
        left(&before, &limits, b"key", 3, now);
        let bytes = export(&before, now);
        for cut in 0..bytes.len() {
            let whole = import(&Memory::new(100), &bytes[..cut], now).is_some();
            assert_eq!(whole, cut == 8 + RATE, "cut at {cut}");
        }
        assert_eq!(import(&Memory::new(100), &[0xFF; 64], now), None);
        assert_eq!(import(&Memory::new(100), &export(&Memory::new(100), now), now), Some(0));
    }
}
