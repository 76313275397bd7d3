//! Dates in HTTP (RFC 9110 section 5.6.7): seconds since 1970, read strictly but in any case of letters.

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

/// A day of the calendar and a time of it.
struct Written {
    year: i64,
    month: i64,
    day: i64,
    /// Seconds since midnight.
    time: i64,
}

/// Reads a date in one of the three formats that a recipient must know; `now` (seconds since 1970) tells the century of a
/// year with two digits. Another time zone than GMT, a single digit or a space too many make it no date.
pub fn parse(text: &[u8], now: i64) -> Option<i64> {
    let written = imf(text).or_else(|| rfc850(text, now)).or_else(|| asctime(text))?;
    written.seconds()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf(text: &[u8]) -> Option<Written> {
    let (weekday, rest) = text.split_at_checked(3)?;
    is_weekday(weekday).then_some(())?;
    let (day, rest) = number(rest.strip_prefix(b", ")?, 2)?;
    let (month, rest) = month(rest.strip_prefix(b" ")?)?;
    let (year, rest) = number(rest.strip_prefix(b" ")?, 4)?;
    let (time, rest) = time(rest.strip_prefix(b" ")?)?;
    rest.eq_ignore_ascii_case(b" GMT").then_some(Written { year, month, day, time })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`: a year that seems more than 50 years ahead is one of the past.
fn rfc850(text: &[u8], now: i64) -> Option<Written> {
    let comma = text.iter().position(|byte| *byte == b',').filter(|comma| (6..=9).contains(comma))?;
    let (weekday, rest) = text.split_at_checked(comma)?;
    (is_weekday(weekday.get(..3)?) && weekday.to_ascii_lowercase().ends_with(b"day")).then_some(())?;
    let (day, rest) = number(rest.strip_prefix(b", ")?, 2)?;
    let (month, rest) = month(rest.strip_prefix(b"-")?)?;
    let (short, rest) = number(rest.strip_prefix(b"-")?, 2)?;
    let (time, rest) = time(rest.strip_prefix(b" ")?)?;
    let this_year = civil(now.div_euclid(DAY)).0;
    let year = this_year - this_year.rem_euclid(100) + short;
    let year = if year > this_year + 50 { year - 100 } else { year };
    rest.eq_ignore_ascii_case(b" GMT").then_some(Written { year, month, day, time })
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &[u8]) -> Option<Written> {
    let (weekday, rest) = text.split_at_checked(3)?;
    is_weekday(weekday).then_some(())?;
    let (month, rest) = month(rest.strip_prefix(b" ")?)?;
    let rest = rest.strip_prefix(b" ")?;
    let (day, rest) = match rest.strip_prefix(b" ") {
        Some(rest) => number(rest, 1)?,
        None => number(rest, 2)?,
    };
    let (time, rest) = time(rest.strip_prefix(b" ")?)?;
    let (year, rest) = number(rest.strip_prefix(b" ")?, 4)?;
    rest.is_empty().then_some(Written { year, month, day, time })
}

fn is_weekday(name: &[u8]) -> bool {
    WEEKDAYS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn month(text: &[u8]) -> Option<(i64, &[u8])> {
    let (name, rest) = text.split_at_checked(3)?;
    let number = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    Some((i64::try_from(number).ok()? + 1, rest))
}

/// So many digits, neither more nor less.
fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let value = number
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))?;
    Some((value, rest))
}

/// `08:49:37`; a second more for one that leaps.
fn time(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, rest) = number(text, 2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 2)?;
    let (second, rest) = number(rest.strip_prefix(b":")?, 2)?;
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3600 + minute * 60 + second, rest))
}

const DAY: i64 = 86_400;

impl Written {
    fn seconds(&self) -> Option<i64> {
        let days = days(self.year, self.month, self.day);
        // A day that the month does not have becomes one of the next.
        (civil(days) == (self.year, self.month, self.day)).then_some(days * DAY + self.time)
    }
}

/// Days since 1970 of a date in the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date so many days after 1970 began: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The date in the preferred format.
pub fn format(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let name = |names: &[&'static [u8; 3]], number: i64| {
        let name = usize::try_from(number).ok().and_then(|number| names.get(number));
        name.and_then(|name| std::str::from_utf8(&name[..]).ok()).unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&WEEKDAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1),
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-21.
    const NOW: i64 = 1_795_219_200;

    #[test]
    fn the_three_formats_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nov 1994 08:49:37 gMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "0",
            "",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, x",
            "Thu, 30 Feb 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
    }

    #[test]
    fn years_with_two_digits_are_at_most_50_years_ahead() {
        let year = |text: &str| civil(parse(text.as_bytes(), NOW).unwrap().div_euclid(DAY)).0;
        assert_eq!(year("Thursday, 18-Aug-50 02:01:18 GMT"), 2050);
        assert_eq!(year("Thursday, 18-Aug-76 02:01:18 GMT"), 2076);
        assert_eq!(year("Thursday, 18-Aug-77 02:01:18 GMT"), 1977);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in -60_000_000_000_i64..250_000_000_000) {
            prop_assert_eq!(parse(format(seconds).as_bytes(), NOW), Some(seconds));
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..40), now in any::<i32>()) {
            let _ = parse(&text, i64::from(now));
        }
    }
}
