//! Frames over WebSockets (RFC 6455), each sent when the one before it has come back.

use crate::connection::{Broken, Connection, Opener};
use crate::load::Counts;
use crate::plan::Plan;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use ring::digest;
use std::io;
use std::time::Instant;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;

/// Says frames and hears them until the time is over.
pub fn echoed(plan: &Plan, opener: &Opener, end: Instant, counts: &Mutex<Counts>) {
    if let Err(error) = talk(plan, opener, end, counts) {
        counts.lock().fail(error.to_string());
    }
}

fn talk(plan: &Plan, opener: &Opener, end: Instant, counts: &Mutex<Counts>) -> io::Result<()> {
    let mut connection = granted(plan, opener)?;
    let mut payload = vec![b'x'; plan.bytes.unwrap_or(128)];
    let mut number = 0_u32;
    while Instant::now() < end {
        number = number.wrapping_add(1);
        // A number in each, so that an echo of another frame is not taken for this one's.
        payload.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, part)| *byte = part);
        let sent = Instant::now();
        connection.send(&frame(&payload, number.wrapping_mul(0x9E37_79B9).to_be_bytes())?)?;
        if heard(&mut connection)? != payload {
            return Err(io::Error::other("an echo of something else"));
        }
        counts.lock().latency.record(sent.elapsed());
    }
    Ok(())
}

/// A WebSocket, once the server has shown that it speaks the protocol.
fn granted(plan: &Plan, opener: &Opener) -> io::Result<Connection> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        plan.path, plan.authority
    );
    let mut connection = opener.open()?;
    let response = match connection.exchange(request.as_bytes()) {
        Ok(response) => response,
        Err(Broken::Failed(error)) => return Err(error),
        Err(Broken::Stale) => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let wanted = accept();
    if (response.status, response.accept.as_ref()) == (101, Some(&wanted)) {
        Ok(connection)
    } else {
        Err(io::Error::other(format!("no WebSocket: {response:?}")))
    }
}

/// What proves that the key was read (RFC 6455 section 4.2.2).
fn accept() -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{KEY}{SUFFIX}").as_bytes());
    BASE64_STANDARD.encode(digest)
}

/// A client's frame: masked, of up to 65,535 bytes.
fn frame(payload: &[u8], mask: [u8; 4]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(payload.len()).map_err(|_| io::Error::other("a frame is too long"))?;
    let mut frame = vec![BINARY];
    match u8::try_from(length) {
        Ok(short) if short < 126 => frame.push(MASKED | short),
        _ => {
            frame.push(MASKED | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(frame)
}

/// The payload of a server's frame, which is not masked.
fn heard(connection: &mut Connection) -> io::Result<Vec<u8>> {
    let length = match connection.take(2)?.as_slice() {
        [BINARY, 126] => match connection.take(2)?.as_slice() {
            [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        },
        [BINARY, short @ ..126] => usize::from(*short),
        other => return Err(io::Error::other(format!("not a frame that was sent: {other:02x?}"))),
    };
    connection.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame(b"Hello", [0x37, 0xfa, 0x21, 0x3d]).unwrap(), hello);
        assert_eq!(frame(&[0; 256], [0; 4]).unwrap()[..4], [0x82, 0xfe, 1, 0]);
    }
}
