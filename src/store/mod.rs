//! Counters of limits and quotas: what is counted, and the stores that count.
//!
//! A request brings its [`Demand`]s, one for each limit that holds for it, and they are decided together: either all
//! are granted and counted, or none is.

pub mod counters;
pub mod document;
pub mod gcra;
pub mod cycle;
pub mod seed;
pub mod prepared;
mod rates;
mod quotas;
pub mod memory;
mod journal;
pub mod keeper;
pub mod handover;
pub mod redis;

use prepared::Prepared;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// A limit, as a store sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What keeps its counters apart from those of other limits: `route api.read 0`, `plan free 1`, `shared logins`. The
    /// same name has the same counters, over reloads and in Redis over nodes.
    pub name: Arc<str>,
    /// How it counts.
    pub rule: Rule,
    prepared: Prepared,
}

impl Limit {
    /// A limit, with all computed that its counters need for each request.
    pub fn new(name: Arc<str>, rule: Rule) -> Self {
        let prepared = Prepared::new(&name, &rule);
        Limit { name, rule, prepared }
    }

    /// What follows from name and rule.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }
}

/// How a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// `count` in `period`, spread evenly, of which `burst` may come at once: the generic cell rate algorithm (ITU-T
    /// I.371). In any time `t` at most `count / period × t + burst` are granted.
    Rate {
        /// How many.
        count: u32,
        /// In how long.
        period: Duration,
        /// How many at once; at least 1.
        burst: u32,
    },
    /// At most `count` between two points in time.
    Quota {
        /// How many.
        count: u64,
        /// When it begins anew.
        cycle: Cycle,
        /// Whether what exceeds it is granted and counted all the same (and billed).
        soft: bool,
    },
}

/// When a quota begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cycle {
    /// With each day, week (Monday) or month of a calendar.
    Calendar(Unit, TimeZone),
    /// A day, week or month after another, counted from a date: the 31st becomes the last of a shorter month.
    Anchored(Unit, TimeZone, Date),
    /// Never: what was used longer than this ago does not count. Kept in 64 slices, so it is exact to 1/64 of the time
    /// and never grants too much.
    Rolling(Duration),
}

/// The length of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A day.
    Day,
    /// Seven days.
    Week,
    /// A month.
    Month,
}

/// An IANA time zone by its name, known to exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeZone(pub Arc<str>);

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Date {
    /// Year.
    pub year: i16,
    /// Month, from 1.
    pub month: i8,
    /// Day, from 1.
    pub day: i8,
}

/// What a request asks of one limit.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// Whose counter: the value of what the limit is `per`. At most 256 bytes; longer ones are hashed by whoever makes it.
    pub key: &'a [u8],
    /// How much; at least 1.
    pub cost: u32,
    /// Whether it is only watched: it is counted where it would be granted, and never stands in the way of the others.
    pub shadow: bool,
}

/// What came of one demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether this limit has room for it.
    pub granted: bool,
    /// How much could come at once after this.
    pub remaining: u64,
    /// Until everything is there again (rate) or the cycle ends (quota).
    pub reset: Duration,
    /// Until the same demand could be granted; zero when it was. [`Duration::MAX`] when it never can, because it is
    /// larger than the limit.
    pub retry_after: Duration,
    /// What a quota has counted in this cycle, this demand included if granted; 0 for rates.
    pub used: u64,
}

/// The outcomes, in the order of the demands.
pub type Outcomes = SmallVec<[Outcome; 4]>;
