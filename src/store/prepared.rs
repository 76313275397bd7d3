//! What follows from a limit's name and rule, computed when the snapshot is built and not for each request.

use super::cycle::{Current, Window};
use super::gcra::Pace;
use super::seed::Seed;
use super::{Cycle, Rule};
use siphasher::sip128::{Hash128, Hasher128, SipHasher13};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How a limit counts, and the beginning of its counters' identities. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counting: Counting,
    prefix: Prefix,
}

/// A [`Rule`], ready.
#[derive(Debug)]
pub enum Counting {
    /// A rate.
    Rate(Pace),
    /// A quota.
    Quota(Quota),
}

/// A quota, ready.
#[derive(Debug)]
pub struct Quota {
    /// At most so many in a cycle.
    pub count: u64,
    /// Whether what exceeds it is granted and counted all the same.
    pub soft: bool,
    cycle: Cycle,
    current: Current,
}

impl Quota {
    /// What counts at `now`, in microseconds since 1970; the calendar is asked once a cycle.
    pub fn window(&self, now: u64) -> Window {
        self.current.window(&self.cycle, now)
    }
}

impl Prepared {
    pub(super) fn new(name: &str, rule: &Rule) -> Self {
        let (counting, prefix) = match rule {
            Rule::Rate { count, period, burst } => {
                (Counting::Rate(Pace::new(*count, *period, *burst)), Prefix::new(Kind::Rate, name))
            }
            Rule::Quota { count, cycle, soft } => {
                let (cycle, current) = (cycle.clone(), Current::default());
                let quota = Quota { count: *count, soft: *soft, cycle, current };
                (Counting::Quota(quota), Prefix::new(Kind::Quota, name))
            }
        };
        Prepared(Arc::new(Inner { counting, prefix }))
    }

    /// How it counts.
    pub fn counting(&self) -> &Counting {
        &self.0.counting
    }

    /// The counter of `key`.
    pub(super) fn counter(&self, key: &[u8]) -> CounterId {
        self.0.prefix.counter(key)
    }
}

/// It follows from name and rule, so two limits that agree in these agree in this.
impl PartialEq for Prepared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Prepared {}
impl Hash for Prepared {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What sets the counters of rates apart from those of quotas.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Kind {
    Rate,
    Quota,
}

/// Which counter: 128 bits of a keyed hash of limit and key, so that nobody outside can look for a key that falls on someone
/// else's counter, or in the same shard. The hash is SipHash-1-3, whose results are the same in every binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CounterId {
    pub high: u64,
    pub low: u64,
}

impl CounterId {
    /// The counter of `key` of the limit of that kind and name.
    pub fn of(kind: Kind, name: &str, key: &[u8]) -> Self {
        Prefix::new(kind, name).counter(key)
    }
}

/// What has taken in kind and name.
#[derive(Debug)]
struct Prefix(SipHasher13);

impl Prefix {
    fn new(kind: Kind, name: &str) -> Self {
        let (one, other) = Seed::current().keys();
        let mut hasher = SipHasher13::new_with_keys(one, other);
        hasher.write(&[kind as u8]);
        hasher.write(name.as_bytes());
        // In no text: the key is the rest, and no two pairs read the same.
        hasher.write(&[0xFF]);
        Prefix(hasher)
    }

    fn counter(&self, key: &[u8]) -> CounterId {
        let mut hasher = self.0;
        hasher.write(key);
        let Hash128 { h1: high, h2: low } = hasher.finish128();
        CounterId { high, low }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limit;
    use std::time::Duration;

    fn rate(name: &str, count: u32) -> Limit {
        Limit::new(name.into(), Rule::Rate { count, period: Duration::from_secs(1), burst: 1 })
    }

    #[test]
    fn counters_are_told_apart_by_kind_name_and_key_and_by_nothing_else() {
        let (one, same) = (rate("ab", 1).prepared, rate("ab", 2).prepared);
        assert_eq!(one.counter(b"c"), same.counter(b"c"));
        assert_eq!(one.counter(b"c"), CounterId::of(Kind::Rate, "ab", b"c"));
        for other in [
            one.counter(b"d"),
            one.counter(b""),
            rate("a", 1).prepared.counter(b"bc"),
            CounterId::of(Kind::Quota, "ab", b"c"),
        ] {
            assert!(other.high != one.counter(b"c").high && other.low != one.counter(b"c").low);
        }
    }

    #[test]
    fn limits_are_the_same_when_name_and_rule_are() {
        assert_eq!(rate("a", 1), rate("a", 1));
        assert_ne!(rate("a", 1), rate("a", 2));
        assert_ne!(rate("a", 1), rate("b", 1));
    }
}
