//! An HTTP/2 client that writes its frames by hand, and so may write any.

use super::client::Client;
use super::wire::{Wire, is_gone};

/// A frame (RFC 9113 section 4.1).
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// Reasons (RFC 9113 section 7).
pub const NO_ERROR: u32 = 0;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

impl Frame {
    /// The stream id, window or reason that a frame begins with, `at` so many bytes.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A frame as it is sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a request without anything in HPACK's tables.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x86];
    for (index, value) in [(2, method), (4, path), (1, "a.test")] {
        block.extend([index, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

/// A connection, after the preface and empty SETTINGS.
pub struct RawH2(pub Wire);

impl RawH2 {
    pub fn over(client: Client) -> RawH2 {
        RawH2::with_settings(client, &[])
    }

    /// With these settings; each is an identifier and a value.
    pub fn with_settings(client: Client, settings: &[(u16, u32)]) -> RawH2 {
        let mut raw = RawH2(client.wire);
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        raw.0
            .write(
                [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(kind::SETTINGS, 0, 0, &settings)[..]].concat(),
            )
            .unwrap();
        raw
    }

    /// Sends a frame, if the other end is still there.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _gone = self.0.write(frame(kind, flags, stream, payload));
    }

    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(kind::HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path));
    }

    /// The next frame; `None` at the end. PING and SETTINGS are acknowledged.
    pub fn next(&mut self) -> Option<Frame> {
        let head = match self.0.read_exactly(9) {
            Ok(head) => head,
            Err(error) if is_gone(&error) => return None,
            Err(error) => panic!("reading a frame: {error}"),
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.0.read_exactly(length).ok()?;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if matches!(frame.kind, kind::PING | kind::SETTINGS) && frame.flags & ACK == 0 {
            let said = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
            self.send(frame.kind, ACK, 0, said);
        }
        Some(frame)
    }

    /// The next frame of one of these types, whatever comes before it.
    pub fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// The same of one that must come.
    pub fn expect(&mut self, kind: u8) -> Frame {
        self.next_of(&[kind]).unwrap_or_else(|| panic!("the connection ended before a frame of type {kind}"))
    }

    /// Waits until all that was sent was read.
    pub fn round_trip(&mut self) -> bool {
        self.send(kind::PING, 0, 0, b"are you ");
        while let Some(frame) = self.next() {
            match frame.kind {
                kind::PING if frame.flags & ACK > 0 => return true,
                kind::GOAWAY => return false,
                _ => {}
            }
        }
        false
    }

    /// Reads to the end; gives the reason of the last GOAWAY.
    pub fn ended(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next() {
            if frame.kind == kind::GOAWAY {
                reason = Some(frame.number(4));
            }
        }
        reason
    }
}
