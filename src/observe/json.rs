//! Writing JSON values (RFC 8259) straight into a buffer of bytes, without a tree and without an allocation.
//!
//! The access log writes a few hundred bytes a request with these; names and punctuation it writes itself.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes a string in quotes, with what must be escaped escaped.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text.as_bytes());
    out.push(b'"');
}

/// Writes bytes that ought to be UTF-8, such as the value of a header, as a string in quotes. What is not UTF-8 becomes
/// U+FFFD, so that the line is valid JSON whatever a client sends.
pub fn bytes(out: &mut Vec<u8>, text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text) {
        return string(out, text);
    }
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// Writes a whole number.
pub fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a duration in milliseconds with three decimals, such as `12.345`. What is under a microsecond is cut off.
pub fn millis(out: &mut Vec<u8>, span: Duration) {
    let whole = span.as_secs().saturating_mul(1000).saturating_add(u64::from(span.subsec_millis()));
    integer(out, whole);
    out.push(b'.');
    out.extend_from_slice(&three_digits(span.subsec_micros() % 1000));
}

/// Writes a time as RFC 3339 has it, in UTC with milliseconds and without quotes: `2026-07-05T09:03:01.042Z`.
///
/// The date is worked out once a second and thread. Times before 1970 are written as 1970, after 9999 as 9999.
pub fn timestamp(out: &mut Vec<u8>, at: SystemTime) {
    thread_local! {
        static LAST: Cell<(u64, [u8; 20])> = const { Cell::new((0, *b"1970-01-01T00:00:00.")) };
    }
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs().min(END_OF_9999);
    let (cached, mut date) = LAST.get();
    if cached != second {
        date = civil(second);
        LAST.set((second, date));
    }
    out.extend_from_slice(&date);
    out.extend_from_slice(&three_digits(since.subsec_millis()));
    out.push(b'Z');
}

/// 9999-12-31T23:59:59Z, the last second RFC 3339 can write.
const END_OF_9999: u64 = 253_402_300_799;

/// RFC 8259 section 7: quotation mark, reverse solidus and the control characters U+0000 to U+001F.
fn must_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Not zero if one of eight bytes must be escaped: each comparison is made for all eight at once. What is borrowed from one byte
/// by the next can only make a suspect of what follows a real one.
fn suspects(word: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let word = u64::from_ne_bytes(word);
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * b'"' as u64));
    let slash = is_zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & HIGH
}

/// Appends the contents of a string. `text` must be UTF-8, whose longer sequences hold nothing that must be escaped.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let (words, rest) = text.as_chunks::<8>();
    // The last bytes make a word with what is harmless.
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let found = words.iter().fold(suspects(last), |found, word| found | suspects(*word));
    if found == 0 {
        out.extend_from_slice(text);
        return;
    }
    for piece in text.split_inclusive(|&byte| must_escape(byte)) {
        match piece.split_last() {
            Some((&last, plain)) if must_escape(last) => {
                out.extend_from_slice(plain);
                escape_one(out, last);
            }
            _ => out.extend_from_slice(piece),
        }
    }
}

fn escape_one(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let low = byte & 0x0f;
            let digit = if low < 10 { b'0' + low } else { b'a' + (low - 10) };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), digit]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The date and time of a second since 1970, up to the point before the milliseconds. The calendar is Howard Hinnant's
/// `civil_from_days`: eras of 400 years that begin on 1 March, so that the leap day comes last.
fn civil(second: u64) -> [u8; 20] {
    let (day, time) = (second / 86_400, second % 86_400);
    let shifted = day + 719_468; // days since 0000-03-01
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);

    let [y1, y2] = two_digits(year / 100);
    let [y3, y4] = two_digits(year % 100);
    let [m1, m2] = two_digits(month);
    let [d1, d2] = two_digits(day_of_month);
    let [h1, h2] = two_digits(time / 3600);
    let [n1, n2] = two_digits(time / 60 % 60);
    let [s1, s2] = two_digits(time % 60);
    [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.']
}

/// `number` under 100, with a leading zero.
fn two_digits(number: u64) -> [u8; 2] {
    let digit = |n: u64| b'0' + (n % 10) as u8;
    [digit(number / 10), digit(number)]
}

/// `number` under 1000, with leading zeros.
fn three_digits(number: u32) -> [u8; 3] {
    let digit = |n: u32| b'0' + (n % 10) as u8;
    [digit(number / 100), digit(number / 10), digit(number)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was(text in any::<String>()) {
            let json = written(|out| string(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn a_string_full_of_escapes_reads_back(text in "[\\x00-\\x22\\\\a-c\u{e9}\u{1f600}]{0,80}") {
            let json = written(|out| string(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn bytes_read_back_as_the_lossy_string(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let json = written(|out| bytes(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), String::from_utf8_lossy(&text));
        }

        #[test]
        fn integers_read_back(signed in any::<i64>(), unsigned in any::<u64>()) {
            prop_assert_eq!(written(|out| integer(out, signed)), signed.to_string());
            prop_assert_eq!(written(|out| integer(out, unsigned)), unsigned.to_string());
        }

        #[test]
        fn milliseconds_keep_the_microseconds(micros in 0u64..1 << 50) {
            let json = written(|out| millis(out, Duration::from_micros(micros)));
            prop_assert_eq!(json, format!("{}.{:03}", micros / 1000, micros % 1000));
        }

        #[test]
        fn every_day_follows_the_one_before(day in 0u64..2_932_895) {
            let date = |day: u64| written(|out| timestamp(out, UNIX_EPOCH + Duration::from_secs(day * 86_400)));
            let parts = |text: String| -> Vec<u32> {
                text[..10].split('-').map(|part| part.parse().unwrap()).collect()
            };
            let (today, next) = (parts(date(day)), parts(date(day + 1)));
            let [year, month, of_month] = today[..] else { panic!() };
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month { 2 => 28 + u32::from(leap), 4 | 6 | 9 | 11 => 30, _ => 31 };
            let expected = match (month, of_month == length) {
                (12, true) => [year + 1, 1, 1],
                (_, true) => [year, month + 1, 1],
                _ => [year, month, of_month + 1],
            };
            prop_assert_eq!(next, expected);
        }
    }

    #[test]
    fn short_escapes_are_used() {
        let json = written(|out| string(out, "\"\\\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}/"));
        assert_eq!(json, "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}/\"");
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let at = |secs, millis| UNIX_EPOCH + Duration::from_secs(secs) + Duration::from_millis(millis);
        let cases = [
            (UNIX_EPOCH, "1970-01-01T00:00:00.000Z"),
            (at(1, 0), "1970-01-01T00:00:01.000Z"),
            (at(951_782_400, 7), "2000-02-29T00:00:00.007Z"),
            (at(951_782_400, 8), "2000-02-29T00:00:00.008Z"),
            (at(1_783_242_181, 42), "2026-07-05T09:03:01.042Z"),
            (at(END_OF_9999, 999), "9999-12-31T23:59:59.999Z"),
            (at(END_OF_9999 + 1, 0), "9999-12-31T23:59:59.000Z"),
            (UNIX_EPOCH - Duration::from_secs(5), "1970-01-01T00:00:00.000Z"),
        ];
        for (time, expected) in cases {
            assert_eq!(written(|out| timestamp(out, time)), expected);
        }
    }

    #[test]
    fn the_longest_duration_is_a_number() {
        let json = written(|out| millis(out, Duration::MAX));
        assert!(serde_json::from_str::<f64>(&json).is_ok(), "{json}");
    }
}
