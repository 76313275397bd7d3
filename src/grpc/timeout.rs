//! `grpc-timeout`: how long a call may take from when it was sent ("Requests" in the protocol).

use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// Most digits of a value.
const DIGITS: usize = 8;

/// The units, the finest first, and their nanoseconds.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// What says how long a call may take says nothing that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How long a call may take, if it says.
///
/// # Errors
/// It says so in a way that is not defined, or more than once.
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut lines = headers.get_all(super::TIMEOUT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => parse(line.as_bytes()).map(Some).ok_or(Malformed),
        (Some(_), Some(_)) => Err(Malformed),
    }
}

/// One to eight digits and a unit.
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count: u64, digit| count * 10 + u64::from(digit - b'0'));
    // The longest are eleven thousand years, more nanoseconds than fit.
    let seconds = nanos / 1_000_000_000;
    Some(match seconds {
        0 => Duration::from_nanos(count * nanos),
        seconds => Duration::from_secs(count * seconds),
    })
}

/// The same, written in the finest unit that it fits in: never more than it is.
pub fn value(left: Duration) -> HeaderValue {
    let nanos = left.as_nanos();
    let most = 10u128.pow(DIGITS as u32);
    let fit = UNITS.iter().find(|(_, unit)| nanos / u128::from(*unit) < most);
    let (letter, count) = match fit {
        Some((letter, unit)) => (*letter, nanos / u128::from(*unit)),
        None => (b'H', most - 1),
    };
    let text = format!("{count}{}", char::from(letter));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_defined_is_understood_and_nothing_else() {
        let hour = Duration::from_secs(3600);
        for (text, expected) in [
            ("1H", Some(hour)),
            ("90M", Some(hour * 3 / 2)),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("00000250u", Some(Duration::from_micros(250))),
            ("0n", Some(Duration::ZERO)),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(hour * 99_999_999)),
            ("100000000n", None),
            ("1", None),
            ("S", None),
            ("", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1 S", None),
            (" 1S", None),
            ("1SS", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn it_is_said_once() {
        let headers = |lines: &[&'static str]| -> HeaderMap {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(super::super::TIMEOUT, HeaderValue::from_static(line));
            }
            headers
        };
        assert_eq!(of(&headers(&[])), Ok(None));
        assert_eq!(of(&headers(&["1S"])), Ok(Some(Duration::from_secs(1))));
        assert_eq!(of(&headers(&["1S", "1S"])), Err(Malformed));
        assert_eq!(of(&headers(&["soon"])), Err(Malformed));
    }

    #[test]
    fn what_is_written_is_no_more_and_hardly_less() {
        for (left, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999H"),
        ] {
            let written = value(left);
            assert_eq!(written, expected, "{left:?}");
            assert!(parse(written.as_bytes()).is_some_and(|parsed| parsed <= left), "{left:?}");
        }
    }
}
