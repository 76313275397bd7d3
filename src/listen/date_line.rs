//! The `Date` of answers that somebody else has made (RFC 9110 section 6.6.1).
//!
//! The engine puts the present time into every head that it writes, as if each answer were its own: then nobody behind can tell
//! how old a stored one is. What HTTP/1.1 writes goes through our [`Connection`](super::connection::Connection), where the date
//! can be put right; HTTP/2 packs its heads beforehand.

use http::HeaderValue;
use parking_lot::Mutex;

/// How long a date is in the one format that is still written.
const LENGTH: usize = 29;

/// The name with what stands before it.
const NAME: &[u8] = b"\r\ndate: ";

/// A date that the next head of an answer has.
#[derive(Debug, Default)]
pub(super) struct DateLine(Mutex<Option<HeaderValue>>);

impl DateLine {
    /// Sets the date; one in another format is not kept.
    pub(super) fn set(&self, date: &HeaderValue) {
        if date.len() == LENGTH {
            *self.0.lock() = Some(date.clone());
        }
    }

    /// Whether the next head needs it.
    pub(super) fn is_set(&mut self) -> bool {
        self.0.get_mut().is_some()
    }

    /// Puts it into a head. An interim one has no date; then it is for the next.
    pub(super) fn put_into(&mut self, head: &mut [u8]) {
        let kept = self.0.get_mut();
        let Some(place) = place(head) else { return };
        if let (Some(line), Some(date)) = (head.get_mut(place..place + LENGTH), kept.take()) {
            line.copy_from_slice(date.as_bytes());
        }
    }
}

/// Where a head has its date, if it is as long as ours.
fn place(head: &[u8]) -> Option<usize> {
    let end = memchr::memmem::find(head, b"\r\n\r\n")?;
    let lines = head.get(..end)?;
    let name = lines.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME))?;
    let value = lines.get(name + NAME.len()..)?;
    let length = memchr::memchr(b'\r', value).unwrap_or(value.len());
    (length == LENGTH).then_some(name + NAME.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn the_date_of_the_next_head_is_put_right() {
        let mut line = DateLine::default();
        line.set(&HeaderValue::from_static(THEN));
        let mut interim = *b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
        line.put_into(&mut interim);
        assert!(line.is_set());
        let head = |date: &str| {
            format!("HTTP/1.1 200 OK\r\nx-date: y\r\nDate: {date}\r\na: b\r\n\r\n\r\ndate: z").into_bytes()
        };
        let mut written = head("Sat, 21 Nov 2026 18:56:16 GMT");
        line.put_into(&mut written);
        assert_eq!(written, head(THEN));
        assert!(!line.is_set());
    }

    #[test]
    fn what_has_no_such_date_stays() {
        let mut line = DateLine::default();
        line.set(&HeaderValue::from_static("0"));
        assert!(!line.is_set());
        line.set(&HeaderValue::from_static(THEN));
        for text in [
            "HTTP/1.1 200 OK\r\ndate: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ndate: Sat",
            "",
            "\r\n\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            let mut head = text.as_bytes().to_vec();
            line.put_into(&mut head);
            assert_eq!(head, text.as_bytes());
        }
    }
}
