//! The gRPC health checking protocol, `grpc.health.v1`: two messages of one field each, written by hand.

use super::client::Answer;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// Path of the method.
pub(super) const CHECK_PATH: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckRequest { service }` as one uncompressed gRPC message.
pub(super) fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0A); // field 1, length-delimited
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0); // not compressed
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// Whether the answer says `SERVING`.
pub(super) fn serving(answer: &Answer) -> Result<(), String> {
    if answer.status != StatusCode::OK {
        return Err(format!("answered HTTP {}", answer.status.as_u16()));
    }
    // The status is a trailer, or a header of an answer that is nothing but trailers.
    let status = answer.trailers.as_ref().and_then(grpc_status).or_else(|| grpc_status(&answer.headers));
    match status {
        Some(0) => {}
        Some(5) => return Err("gRPC: unknown service".to_owned()),
        Some(12) => return Err("gRPC: health checks are not implemented".to_owned()),
        Some(code) => return Err(format!("gRPC status {code}")),
        None => return Err("not gRPC: no grpc-status".to_owned()),
    }
    match response_status(&answer.body) {
        Some(1) => Ok(()),
        Some(0) => Err("gRPC health: UNKNOWN".to_owned()),
        Some(2) => Err("gRPC health: NOT_SERVING".to_owned()),
        Some(3) => Err("gRPC health: SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("gRPC health: status {other}")),
        None => Err("gRPC health: unreadable answer".to_owned()),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Field 1 of `HealthCheckResponse`, 0 when absent. Unknown fields are skipped, as protobuf asks.
fn response_status(framed: &[u8]) -> Option<u64> {
    let (prefix, rest) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = prefix;
    let mut message = rest.get(..u32::from_be_bytes(*length) as usize)?;
    if *compressed != 0 {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<&str>, body: &[u8]) -> Answer {
        let trailers = status
            .map(|status| HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]));
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body),
            trailers,
        }
    }

    #[test]
    fn requests_are_the_documented_bytes() {
        assert_eq!(&check_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&check_request("shop")[..], b"\0\0\0\0\x06\x0A\x04shop");
        let long = "s".repeat(300);
        assert_eq!(&check_request(&long)[..8], [0, 0, 0, 1, 47, 0x0A, 0xAC, 0x02]);
    }

    #[test]
    fn only_serving_is_healthy() {
        assert_eq!(serving(&answer(Some("0"), b"\0\0\0\0\x02\x08\x01")), Ok(()));
        assert_eq!(
            serving(&answer(Some("0"), b"\0\0\0\0\x06\x12\x02hi\x08\x01")),
            Ok(()),
            "unknown fields are skipped"
        );
        for (status, body, word) in [
            (Some("0"), &b"\0\0\0\0\x02\x08\x02"[..], "NOT_SERVING"),
            (Some("0"), b"\0\0\0\0\0", "UNKNOWN"),
            (Some("0"), b"\0\0\0\0\x02\x08\x03", "SERVICE_UNKNOWN"),
            (Some("5"), b"", "unknown service"),
            (Some("12"), b"", "not implemented"),
            (Some("14"), b"", "status 14"),
            (None, b"\0\0\0\0\x02\x08\x01", "no grpc-status"),
            (Some("0"), b"", "unreadable"),
            (Some("0"), b"\x01\0\0\0\x02\x08\x01", "unreadable"),
            (Some("0"), b"\0\0\0\0\x02\x08", "unreadable"),
            (Some("0"), b"\0\0\0\0\x02\x08\xFF", "unreadable"),
            (Some("0"), b"\0\xFF\xFF\xFF\xFF\x08\x01", "unreadable"),
        ] {
            let error = serving(&answer(status, body)).unwrap_err();
            assert!(error.contains(word), "{error} / {word}");
        }
    }
}
