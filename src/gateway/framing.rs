//! How a body is told from what follows it, said anew for each connection (RFC 9112 section 6).

use super::client::Client;
use crate::exchange::ResponseHead;
use crate::reply::Kind;
use crate::upstream::Framing;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Version};

/// Says how a request's body is told from what follows: by its length if that is known, else by chunks; and nothing about one
/// that is not there (RFC 9112 section 6).
pub(super) fn request_framing(headers: &mut HeaderMap, empty: bool) -> Result<Framing, Kind> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        if empty {
            return Ok(Framing::Ended);
        }
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        return Ok(Framing::Chunked);
    };
    if empty {
        if length != "0" {
            headers.remove(CONTENT_LENGTH);
        }
        return Ok(Framing::Ended);
    }
    let length = length.to_str().ok().and_then(|length| length.parse().ok()).ok_or(Kind::BAD_REQUEST)?;
    headers.remove(TRANSFER_ENCODING);
    Ok(Framing::Length(length))
}

/// Says how the body is told from what follows, when it does not say so itself.
pub(super) fn frame(client: &mut Client<'_>, head: &mut ResponseHead, ends: bool) {
    head.headers.remove(TRANSFER_ENCODING);
    if head.headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    if ends {
        let request = client.request();
        // Over HTTP/1.1 an answer that says nothing goes on to the end of the connection.
        let is_told = request.method == Method::HEAD
            || head.status.is_informational()
            || matches!(head.status.as_u16(), 204 | 304)
            || request.version == Version::HTTP_2;
        if !is_told {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return;
    }
    match client.request().version {
        Version::HTTP_11 => drop(head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
        // HTTP/1.0 knows no chunks: the end of the connection is the end of the body (RFC 9112 section 6.1).
        Version::HTTP_10 => client.close(),
        // Frames say it.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_one_thing_about_its_length() {
        let (length, coding) = ("content-length", "transfer-encoding");
        for (fields, empty, framing, left) in [
            (&[][..], true, Some(Framing::Ended), &[][..]),
            (&[], false, Some(Framing::Chunked), &[(coding, "chunked")]),
            (&[(length, "5")], false, Some(Framing::Length(5)), &[(length, "5")]),
            (&[(length, "5"), (coding, "chunked")], false, Some(Framing::Length(5)), &[(length, "5")]),
            (&[(length, "0")], true, Some(Framing::Ended), &[(length, "0")]),
            (&[(length, "5")], true, Some(Framing::Ended), &[]),
            (&[(length, "5, 5")], false, None, &[(length, "5, 5")]),
        ] {
            let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
                let field = |(name, value): &(&'static str, &'static str)| {
                    (http::HeaderName::from_static(name), HeaderValue::from_static(value))
                };
                fields.iter().map(field).collect()
            };
            let mut headers = map(fields);
            assert_eq!(request_framing(&mut headers, empty).ok(), framing, "{fields:?}");
            assert_eq!(headers, map(left), "{fields:?}");
        }
    }
}
