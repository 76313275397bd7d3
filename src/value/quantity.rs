//! Quantities with units: sizes, durations, percentages. A bare number is refused, because nobody can tell what it means.

use super::text::text_value;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes such as `10MiB`. Units: `B`, `KiB`, `MiB`, `GiB` (1024) and `KB`, `MB`, `GB` (1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) =
            SIZES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).ok_or_else(
                || format!("size `{text}` has no unit\nhelp: write for example `10MiB`, `64KiB` or `512B`"),
            )?;
        let bytes = number.trim_end().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        bytes.map(ByteSize).ok_or_else(|| {
            format!("`{text}` is not a size\nhelp: write a whole number and a unit, for example `10MiB`")
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZES
            .iter()
            .find(|(unit, factor)| {
                self.0 >= *factor && self.0.is_multiple_of(*factor) && (unit.len() == 3 || *factor == 1)
            })
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

text_value!(ByteSize, "ByteSize", pattern: r"^[0-9]+ ?([KMG]i?)?B$", "a size with its unit, such as `10MiB`");

/// A length of time such as `250ms`, `30s`, `5m`, `24h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// The longest one in milliseconds: what is longer is a typing error, and would not fit into every clock.
const LONGEST: u64 = 3_650 * 86_400_000;

const SPANS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    /// From milliseconds.
    pub const fn millis(ms: u64) -> Self {
        Span(Duration::from_millis(ms))
    }

    /// From seconds.
    pub const fn secs(s: u64) -> Self {
        Span(Duration::from_secs(s))
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        if unit.is_empty() && !number.is_empty() {
            return Err(format!(
                "duration `{text}` has no unit\nhelp: write for example `{number}s` or `{number}ms`"
            ));
        }
        let factor = SPANS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let Some(factor) = factor.filter(|_| !number.is_empty()) else {
            return Err(format!(
                "`{text}` is not a duration\nhelp: write a whole number and a unit: ms, s, m, h or d"
            ));
        };
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        ms.filter(|ms| *ms <= LONGEST).map(Span::millis).ok_or_else(|| {
            format!("`{text}` is too long: at most {} are possible, ten years", Span::millis(LONGEST))
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(86_400_000) => write!(f, "{}d", ms / 86_400_000),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

text_value!(Span, "Span", pattern: r"^[0-9]+ ?(ms|s|m|min|h|d)$", "a duration with its unit, such as `250ms` or `30s`");

/// A length of time that others are told in whole seconds, such as `30s` or `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let span: Span = text.parse()?;
        match span.0.subsec_millis() {
            0 => Ok(Seconds(span.0)),
            _ => Err(format!(
                "`{text}` is no whole number of seconds\nhelp: clients are told seconds: write for example `1s`"
            )),
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

text_value!(Seconds, "Seconds", pattern: r"^[0-9]+ ?(ms|s|m|min|h|d)$", "a duration of whole seconds, such as `30s` or `5m`");

/// A share of a hundred such as `10%` or `0.5%`, kept in hundredths of a percent (0 to 10,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u16);

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!("`{text}` is not a percentage\nhelp: write for example `10%` or `0.5%`, from 0% to 100%")
        };
        let number = text.strip_suffix('%').ok_or_else(refuse)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let well = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !well(whole) || !well(part) || part.len() > 2 || whole.len() > 3 {
            return Err(refuse());
        }
        let hundredths = whole.parse::<u16>().unwrap_or(u16::MAX).saturating_mul(100);
        let scale = if part.len() == 1 { 10 } else { 1 };
        let total = hundredths.saturating_add(part.parse::<u16>().unwrap_or(0) * scale);
        if total > 10_000 { Err(refuse()) } else { Ok(Percent(total)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole}%"),
            _ if part.is_multiple_of(10) => write!(f, "{whole}.{}%", part / 10),
            _ => write!(f, "{whole}.{part:02}%"),
        }
    }
}

text_value!(Percent, "Percent", pattern: r"^[0-9]{1,3}(\.[0-9]{1,2})? ?%$", "a percentage such as `10%`");

/// A number with its thing: `1 route`, `2 routes`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("10MiB", 10 << 20, "10MiB"),
            ("64 KiB", 65536, "64KiB"),
            ("1500B", 1500, "1500B"),
            ("0B", 0, "0B"),
            ("2MB", 2_000_000, "2000000B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
        }
        for bad in ["10", "", "MiB", "-1B", "1.5MiB", "99999999999GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_read_and_print() {
        for (text, ms, printed) in [
            ("250ms", 250, "250ms"),
            ("30s", 30_000, "30s"),
            ("5min", 300_000, "5m"),
            ("48h", 172_800_000, "2d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_millis(), span.to_string().as_str()), (ms, printed));
        }
        for (bad, why) in [
            ("30", "has no unit"),
            ("s", "is not a duration"),
            ("", "is not a duration"),
            ("1.5s", "is not a duration"),
            ("-1s", "is not a duration"),
            ("99999d", "at most 3650d"),
            ("99999999999999999999s", "at most 3650d"),
        ] {
            let said = bad.parse::<Span>().unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
        assert!("3650d".parse::<Span>().is_ok());
    }

    #[test]
    fn seconds_are_whole() {
        assert_eq!("2000ms".parse::<Seconds>().unwrap().to_string(), "2s");
        assert!("0s".parse::<Seconds>().is_ok());
        for bad in ["1500ms", "1ms", "1", ""] {
            assert!(bad.parse::<Seconds>().is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages_read_and_print() {
        for (text, hundredths, printed) in
            [("10%", 1000, "10%"), ("0.5%", 50, "0.5%"), ("99.99%", 9999, "99.99%"), ("100%", 10000, "100%")]
        {
            let percent: Percent = text.parse().unwrap();
            assert_eq!((percent.0, percent.to_string().as_str()), (hundredths, printed));
        }
        for bad in ["10", "101%", "%", "1.%", "1.234%", "-1%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
    }
}
