//! When quotas begin anew: from a point in time to the span that counts at it.
//!
//! What is used is kept under the start of a *slot*: the day, week or month, or one of the slices of a rolling time. What
//! counts at a point in time is the sum of the slots in a [`Window`]. All times are whole microseconds since 1970.

use super::{Cycle, Date, TimeZone, Unit};
use arc_swap::ArcSwap;
use jiff::civil;
use jiff::{Span, Timestamp};
use std::sync::Arc;

/// Slices of a rolling time.
const SLICES: u64 = 64;

/// What counts at a point in time: slots that start in `since..end`, and what is counted now goes to `slot`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Start of the first slot that counts.
    pub since: u64,
    /// Start of the present slot: the start of the day, week or month, or of the slice.
    pub slot: u64,
    /// When what is counted now counts no more.
    pub end: u64,
}

impl Window {
    /// When what was counted under `slot` counts no more.
    pub fn forgotten(&self, slot: u64) -> u64 {
        slot.saturating_add(self.end.saturating_sub(self.slot)).min(self.end)
    }

    /// Whether a slot counts.
    pub fn counts(&self, slot: u64) -> bool {
        (self.since..self.end).contains(&slot)
    }
}

/// The window of `cycle` at `now`. This does calendar arithmetic: see [`Current`].
///
/// A day begins at its first moment: where midnight is skipped, that is an hour later, and days have 23, 24 or 25 hours.
pub fn window(cycle: &Cycle, now: u64) -> Window {
    match cycle {
        Cycle::Rolling(time) => rolling(time.as_micros().try_into().unwrap_or(u64::MAX), now),
        Cycle::Calendar(unit, zone) => calendar(*unit, zone, None, now),
        Cycle::Anchored(unit, zone, date) => calendar(*unit, zone, Some(*date), now),
    }
}

/// The slice that is being filled and the 64 before it count: what was used at the very end of a slice is not forgotten
/// too early, and at the very beginning up to 1/64 of the time too late.
fn rolling(time: u64, now: u64) -> Window {
    let slice = time.div_ceil(SLICES).max(1);
    let slot = now - now % slice;
    let since = slot.saturating_sub(slice.saturating_mul(SLICES));
    Window { since, slot, end: slot.saturating_add(slice.saturating_mul(SLICES + 1)) }
}

/// A time outside of what a calendar can tell is one cycle without an end.
fn calendar(unit: Unit, zone: &TimeZone, anchor: Option<Date>, now: u64) -> Window {
    bounds(unit, zone, anchor, now).unwrap_or(Window { since: 0, slot: 0, end: u64::MAX })
}

fn bounds(unit: Unit, zone: &TimeZone, anchor: Option<Date>, now: u64) -> Option<Window> {
    let zone = known(zone);
    let today = Timestamp::from_microsecond(i64::try_from(now).ok()?).ok()?.to_zoned(zone.clone()).date();
    let start = |date: civil::Date| {
        let start = date.to_zoned(zone.clone()).ok()?.timestamp().as_microsecond();
        Some(u64::try_from(start).unwrap_or(0))
    };
    let anchor = match anchor {
        Some(date) => civil::Date::new(date.year, date.month, date.day).ok()?,
        None => first(unit),
    };
    let number = cycles_between(unit, anchor, today);
    let slot = start(nth(unit, anchor, number)?)?;
    let end = start(nth(unit, anchor, number.checked_add(1)?)?)?;
    Some(Window { since: slot, slot, end })
}

/// The configuration made sure that the zone exists; should it be gone since, UTC is better than no cycle.
fn known(zone: &TimeZone) -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get(&zone.0).unwrap_or_else(|error| {
        log::error!("quota: time zone `{}`: {error}; counting in UTC", zone.0);
        jiff::tz::TimeZone::UTC
    })
}

/// A date that cycles of a calendar are counted from: a Monday for weeks, the first for months.
fn first(unit: Unit) -> civil::Date {
    match unit {
        Unit::Day | Unit::Month => civil::date(1970, 1, 1),
        Unit::Week => civil::date(1970, 1, 5),
    }
}

/// How many cycles after `anchor` the one begins that `date` is in; negative before.
fn cycles_between(unit: Unit, anchor: civil::Date, date: civil::Date) -> i64 {
    let days = || i64::from((date - anchor).get_days());
    match unit {
        Unit::Day => days(),
        Unit::Week => days().div_euclid(7),
        Unit::Month => {
            let months = 12 * (i64::from(date.year()) - i64::from(anchor.year())) + i64::from(date.month())
                - i64::from(anchor.month());
            let begun = nth(unit, anchor, months).is_some_and(|start| start <= date);
            months - i64::from(!begun)
        }
    }
}

/// The start of a cycle. Always counted from the anchor, so that one on the 31st finds back to the 31st after a shorter
/// month.
fn nth(unit: Unit, anchor: civil::Date, number: i64) -> Option<civil::Date> {
    let span = match unit {
        Unit::Day => Span::new().try_days(number),
        Unit::Week => Span::new().try_weeks(number),
        Unit::Month => Span::new().try_months(number),
    };
    anchor.checked_add(span.ok()?).ok()
}

/// The present window of one cycle, remembered: the calendar is asked once a cycle and not for each request.
#[derive(Debug, Default)]
pub struct Current(ArcSwap<Window>);

impl Current {
    /// The window of `cycle` at `now`. A `Current` serves one and the same cycle all its life.
    pub fn window(&self, cycle: &Cycle, now: u64) -> Window {
        if let Cycle::Rolling(_) = cycle {
            return window(cycle, now);
        }
        let known = **self.0.load();
        if known.counts(now) {
            return known;
        }
        let found = window(cycle, now);
        self.0.store(Arc::new(found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const HOUR: u64 = 3_600_000_000;

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_microsecond() as u64
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone(name.into())
    }

    fn anchored(unit: Unit, name: &str, (year, month, day): (i16, i8, i8)) -> Cycle {
        Cycle::Anchored(unit, zone(name), Date { year, month, day })
    }

    #[track_caller]
    fn assert_window(cycle: &Cycle, now: &str, start: &str, end: &str) {
        let found = window(cycle, at(now));
        let expected = Window { since: at(start), slot: at(start), end: at(end) };
        let text = |micros| Timestamp::from_microsecond(micros as i64).unwrap().to_string();
        assert_eq!(found, expected, "{now}: {} to {}", text(found.slot), text(found.end));
    }

    #[test]
    fn days_are_those_of_the_zone_and_may_have_23_or_25_hours() {
        let berlin = Cycle::Calendar(Unit::Day, zone("Europe/Berlin"));
        assert_window(&berlin, "2026-01-15T22:59:59Z", "2026-01-14T23:00:00Z", "2026-01-15T23:00:00Z");
        assert_window(&berlin, "2026-01-15T23:00:00Z", "2026-01-15T23:00:00Z", "2026-01-16T23:00:00Z");
        assert_window(&berlin, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        assert_window(&berlin, "2026-10-25T00:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        assert_window(&berlin, "2026-10-25T01:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        let york = Cycle::Calendar(Unit::Day, zone("America/New_York"));
        assert_window(&york, "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
        assert_window(&york, "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
    }

    #[test]
    fn a_day_without_midnight_begins_an_hour_later() {
        let cairo = Cycle::Calendar(Unit::Day, zone("Africa/Cairo"));
        // On 24 April 2026 clocks go from 00:00 to 01:00.
        assert_window(&cairo, "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z");
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let week = Cycle::Calendar(Unit::Week, zone("Europe/Berlin"));
        // 2026-03-29, the last day of this week, has 23 hours.
        assert_window(&week, "2026-03-29T21:59:59Z", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z");
        assert_window(&week, "2026-03-29T22:00:00Z", "2026-03-29T22:00:00Z", "2026-04-05T22:00:00Z");
        let month = Cycle::Calendar(Unit::Month, zone("UTC"));
        assert_window(&month, "2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        assert_window(&month, "2026-12-31T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        let york = Cycle::Calendar(Unit::Month, zone("America/New_York"));
        assert_window(&york, "2026-11-15T00:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z");
    }

    #[test]
    fn the_31st_becomes_the_last_of_a_shorter_month_and_comes_back() {
        let cycle = anchored(Unit::Month, "UTC", (2026, 1, 31));
        assert_window(&cycle, "2026-02-27T23:59:59Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z");
        assert_window(&cycle, "2026-02-28T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_window(&cycle, "2026-04-30T00:00:00Z", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z");
        assert_window(&cycle, "2028-02-29T01:00:00Z", "2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z");
        assert_window(&cycle, "2025-12-30T01:00:00Z", "2025-11-30T00:00:00Z", "2025-12-31T00:00:00Z");
        let leap = anchored(Unit::Month, "Europe/Berlin", (2024, 2, 29));
        assert_window(&leap, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-04-28T22:00:00Z");
    }

    #[test]
    fn weeks_may_be_anchored_to_any_day() {
        let cycle = anchored(Unit::Week, "UTC", (2026, 7, 1));
        assert_window(&cycle, "2026-07-08T00:00:00Z", "2026-07-08T00:00:00Z", "2026-07-15T00:00:00Z");
        assert_window(&cycle, "2026-06-30T00:00:00Z", "2026-06-24T00:00:00Z", "2026-07-01T00:00:00Z");
    }

    #[test]
    fn an_unknown_zone_is_utc_and_the_end_of_time_has_a_window() {
        let nowhere = Cycle::Calendar(Unit::Day, zone("Nowhere/Town"));
        assert_window(&nowhere, "2026-01-15T12:00:00Z", "2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z");
        assert_eq!(window(&nowhere, u64::MAX), Window { since: 0, slot: 0, end: u64::MAX });
        assert_eq!(window(&nowhere, 0).since, 0);
        let wrong = anchored(Unit::Month, "UTC", (2026, 2, 30));
        assert_eq!(window(&wrong, at("2026-01-15T12:00:00Z")).end, u64::MAX);
    }

    #[test]
    fn the_present_window_is_remembered_until_it_ends() {
        let (day, current) = (Cycle::Calendar(Unit::Day, zone("UTC")), Current::default());
        let noon = at("2026-07-01T12:00:00Z");
        assert_eq!(current.window(&day, noon), window(&day, noon));
        for now in [noon + 11 * HOUR, noon + 12 * HOUR, noon - 13 * HOUR] {
            assert_eq!(current.window(&day, now), window(&day, now));
        }
    }

    proptest! {
        /// Nothing used in the time before counts no more, and nothing longer than the time and a slice.
        #[test]
        fn a_rolling_window_forgets_neither_too_early_nor_late(
            time in 1_u64..10_000_000_000, used in 1_u64 << 50..1 << 51, later in 0_u64..20_000_000_000,
        ) {
            let cycle = Cycle::Rolling(Duration::from_micros(time));
            let slot = window(&cycle, used).slot;
            let after = window(&cycle, used + later);
            if later <= time {
                prop_assert!(after.counts(slot));
            } else if later > time + 2 * time.div_ceil(64) + 64 {
                prop_assert!(!after.counts(slot));
            }
            prop_assert!(!after.counts(slot) || after.forgotten(slot) > used + later);
            prop_assert!(!window(&cycle, window(&cycle, used).forgotten(slot)).counts(slot));
        }

        #[test]
        fn cycles_of_a_calendar_follow_each_other_without_a_gap(
            now in 0_u64..4_000_000_000_000_000,
            zone_name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
            unit in prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month]),
            anchor in prop::option::of((1990_i16..2040, 1_i8..13, 1_i8..29)),
        ) {
            let cycle = match anchor {
                Some(date) => anchored(unit, zone_name, date),
                None => Cycle::Calendar(unit, zone(zone_name)),
            };
            let found = window(&cycle, now);
            prop_assert!(found.since <= now && now < found.end);
            prop_assert_eq!(window(&cycle, found.end - 1), found);
            prop_assert_eq!(window(&cycle, found.end).slot, found.end);
        }
    }
}
