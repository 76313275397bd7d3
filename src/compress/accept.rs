//! Which coding a client likes best (RFC 9110 section 12.5.3).

use super::Coding;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// The coding with the highest weight; of equal ones the first in `offered`. `None` is the answer as it is.
pub(super) fn choose(headers: &HeaderMap, offered: &[Coding]) -> Option<Coding> {
    let mut best = None;
    for coding in offered {
        let weight = weight(headers, coding.name().as_bytes());
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, weight));
        }
    }
    let (coding, weight) = best?;
    // Whoever likes the bytes as they are better gets them so.
    let identity = named(headers, b"identity").unwrap_or(0);
    (weight >= identity).then_some(coding)
}

/// The weight of a coding in thousandths: what is said of it, else of `*`, else nothing.
fn weight(headers: &HeaderMap, coding: &[u8]) -> u16 {
    named(headers, coding).or_else(|| named(headers, b"*")).unwrap_or(0)
}

fn named(headers: &HeaderMap, wanted: &[u8]) -> Option<u16> {
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    let items = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut found = None;
    for item in items {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let same =
            name.eq_ignore_ascii_case(wanted) || wanted == b"gzip" && name.eq_ignore_ascii_case(b"x-gzip");
        if same {
            let quality =
                parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
            // What is said twice counts by its lower weight; a weight that is none refuses.
            let weight = quality.map_or(1000, |quality| thousandths(quality).unwrap_or(0));
            found = Some(found.map_or(weight, |found: u16| found.min(weight)));
        }
    }
    found
}

/// A weight (RFC 9110 section 12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, rest) = text.split_first()?;
    let digits = match rest {
        [] => &[][..],
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let part =
        (0..3).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| u16::from(digit - b'0')));
    match (whole, part) {
        (b'0', part) => Some(part),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_client_chooses() {
        let all = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["GZIP, Br"], Some(Coding::Brotli)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Zstd)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Coding::Gzip)),
            (&["gzip", "br"], Some(Coding::Brotli)),
            (&["*"], Some(Coding::Zstd)),
            (&["*;q=0.1, zstd;q=0"], Some(Coding::Brotli)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0, *;q=0"], None),
            (&["identity, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip"], Some(Coding::Gzip)),
            (&["gzip;q=0.0001"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q="], None),
            (&["gzip ; q=0.001"], Some(Coding::Gzip)),
            (&["gzip, gzip;q=0"], None),
            (&["compress, deflate"], None),
        ] {
            let headers: HeaderMap =
                lines.iter().map(|line| (ACCEPT_ENCODING, HeaderValue::from_static(line))).collect();
            assert_eq!(choose(&headers, &all), expected, "{lines:?}");
        }
    }

    #[test]
    fn of_equals_the_first_offered_wins() {
        let headers: HeaderMap =
            [(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"))].into_iter().collect();
        assert_eq!(choose(&headers, &[Coding::Gzip, Coding::Brotli]), Some(Coding::Gzip));
    }
}
