//! A target that keeps what it gets, byte for byte, and reads it as strictly as can be.

use crate::harness::{Upstream, Wire};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// The target.
pub struct Origin {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    /// Answers every request that it can read with 200.
    pub fn start() -> Origin {
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let upstream = Upstream::raw(move |wire| serve(wire, &kept));
        Origin { upstream, seen }
    }

    pub fn addr(&self) -> SocketAddr {
        self.upstream.addr()
    }

    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Every whole request: method, target, host, body.
    pub fn received(&self) -> Result<Vec<String>, String> {
        let seen = self.seen.lock().unwrap();
        let mut all = Vec::new();
        for bytes in seen.iter() {
            match read(bytes) {
                Ok(Some((text, used))) if used == bytes.len() => all.push(text),
                Ok(None) => {}
                Ok(_) => return Err(format!("more than a request: {:?}", String::from_utf8_lossy(bytes))),
                Err(why) => return Err(format!("{why}: {:?}", String::from_utf8_lossy(bytes))),
            }
        }
        Ok(all)
    }
}

fn serve(mut wire: Wire, kept: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut bytes = wire.read_some()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let place = {
            let mut kept = kept.lock().unwrap();
            kept.push(bytes.clone());
            kept.len() - 1
        };
        while matches!(read(&bytes), Ok(None)) {
            let more = wire.read_some()?;
            if more.is_empty() {
                return Ok(());
            }
            bytes.extend_from_slice(&more);
            if let Some(slot) = kept.lock().unwrap().get_mut(place) {
                slot.clone_from(&bytes);
            }
        }
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// A request in one line, and how many bytes it has; `None` when it is not whole.
fn read(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    // Values may have any bytes from 0x80 on.
    let head = String::from_utf8_lossy(&bytes[..end]);
    if head.replace("\r\n", "").contains(|c: char| c.is_control() && c != '\t') {
        return Err("a control character in the head".to_owned());
    }
    let mut lines = head.split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = line[..] else { return Err("no request line".to_owned()) };
    let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("no field")?;
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        {
            return Err(format!("no name: {name:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts.push(value),
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            "connection" | "upgrade" | "te" | "trailer" | "http2-settings" => {
                return Err(format!("{name} is forwarded"));
            }
            _ => {}
        }
    }
    let [host] = hosts[..] else { return Err(format!("{} hosts", hosts.len())) };
    let rest = &bytes[end + 4..];
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) && !length.is_empty() => {
            let length: usize = length.parse().map_err(|_| "a length beyond all")?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        ([], ["chunked"]) => unchunk(rest)?,
        other => return Err(format!("ambiguous: {other:?}")),
    };
    Ok(body.map(|(body, used)| {
        let text = format!("{method} {target} {host} {}", String::from_utf8_lossy(&body));
        (text, end + 4 + used)
    }))
}

type Unchunked = Option<(Vec<u8>, usize)>;

/// As we write them: no extensions, no trailers.
fn unchunk(mut rest: &[u8]) -> Result<Unchunked, String> {
    let all = rest.len();
    let mut body = Vec::new();
    loop {
        let Some(end) = find(rest, b"\r\n") else { return Ok(None) };
        let digits = std::str::from_utf8(&rest[..end]).map_err(|_| "a size that is no text")?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size =
            usize::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or(format!("no size: {digits:?}"))?;
        let Some(chunk) = rest.get(end + 2..end + 2 + size + 2) else { return Ok(None) };
        let (data, close) = chunk.split_at(size);
        if close != b"\r\n" {
            return Err("a chunk does not end where it says".to_owned());
        }
        rest = &rest[end + 2 + size + 2..];
        if size == 0 {
            return Ok(Some((body, all - rest.len())));
        }
        body.extend_from_slice(data);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
