//! Rates: a count in a time.

use super::text::text_value;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// So many in a time: `20/s`, `1000/h`, `100/10s`, `5/d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long; at least a second.
    pub period: Duration,
}

const UNITS: &[(&str, u64)] = &[
    ("s", 1),
    ("sec", 1),
    ("second", 1),
    ("m", 60),
    ("min", 60),
    ("minute", 60),
    ("h", 3_600),
    ("hour", 3_600),
    ("d", 86_400),
    ("day", 86_400),
];

const HELP: &str = "write for example `20/s`, `100/10s`, `1000/min`, `5000/h` or `10000/d`";

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate\nhelp: {HELP}");
        let (count, period) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.trim().parse().map_err(|_| wrong())?;
        if count == 0 {
            return Err(format!("`{text}` lets nothing through\nhelp: {HELP}"));
        }
        let period = period.trim();
        let digits = period.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = period.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, seconds)| *seconds);
        let number = if number.is_empty() { Some(1) } else { number.parse::<u64>().ok() };
        let seconds =
            number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit)).ok_or_else(wrong)?;
        if !(1..=366 * 86_400).contains(&seconds) {
            return Err(format!("the time of `{text}` is not between a second and a year"));
        }
        Ok(Rate { count, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.period.as_secs();
        let (unit, size) = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)]
            .into_iter()
            .find(|(_, size)| seconds.is_multiple_of(*size))
            .unwrap_or(("s", 1));
        match seconds / size {
            1 => write!(f, "{}/{unit}", self.count),
            number => write!(f, "{}/{number}{unit}", self.count),
        }
    }
}

text_value!(Rate, "Rate", pattern: r"^[0-9]+ ?/ ?[0-9]*[a-z]+$", "a rate such as `20/s`, `1000/h` or `100/10s`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, count, seconds, written) in [
            ("20/s", 20, 1, "20/s"),
            ("1000/h", 1000, 3600, "1000/h"),
            ("100/10s", 100, 10, "100/10s"),
            ("5/60s", 5, 60, "5/min"),
            ("7 / day", 7, 86_400, "7/d"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.count, rate.period.as_secs()), (count, seconds));
            assert_eq!(rate.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "20", "20/", "/s", "0/s", "-1/s", "20/x", "20/0s", "20/2y", "1/400d", "4294967296/s"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
