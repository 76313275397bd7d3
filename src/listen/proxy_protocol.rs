//! The PROXY protocol, versions 1 and 2: how a load balancer that passes connections on tells where they came from
//! (haproxy.org, doc/proxy-protocol.txt).
//!
//! Whoever may speak it must, and nobody else may: a header from a stranger is taken for what the stranger has to say, and
//! is no HTTP and no TLS.

use crate::observe::metrics::{ProxyFailure, ProxyMetrics};
use crate::value::Networks;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Who speaks it on a listener.
pub struct ProxyProtocol {
    /// The networks that do.
    pub from: Networks,
    /// What failures are counted with.
    pub metrics: ProxyMetrics,
}

/// What a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The connection is the load balancer's own, such as a health check, or it does not know.
    Nothing,
    /// The addresses of the client's connection.
    Addresses {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, line end included.
const LONGEST_LINE: usize = 107;

/// Longest body of version 2 that is taken: addresses and plenty of extensions.
const LONGEST_BODY: usize = 4096;

/// Reads the header and nothing behind it. The caller sets the time.
///
/// # Errors
/// There is none, or it is not as it should be.
pub async fn read(stream: &mut TcpStream) -> Result<Told, ProxyFailure> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await.map_err(|error| closed(&error))?;
    if begin == *SIGNATURE {
        return read_binary(stream).await;
    }
    if begin.starts_with(b"PROXY ") {
        return read_line(stream, begin.to_vec()).await;
    }
    Err(ProxyFailure::Missing)
}

async fn read_line(stream: &mut TcpStream, mut line: Vec<u8>) -> Result<Told, ProxyFailure> {
    let mut ahead = [0; LONGEST_LINE];
    while !line.ends_with(b"\n") {
        let room = ahead.get_mut(..LONGEST_LINE.saturating_sub(line.len())).unwrap_or_default();
        if room.is_empty() {
            return Err(ProxyFailure::Malformed);
        }
        // What stands behind the line belongs to somebody else.
        let seen = stream.peek(room).await.map_err(|error| closed(&error))?;
        let seen = room.get(..seen).filter(|seen| !seen.is_empty()).ok_or(ProxyFailure::Closed)?;
        let wanted = memchr::memchr(b'\n', seen).map_or(seen.len(), |end| end + 1);
        let mut taken = vec![0; wanted];
        stream.read_exact(&mut taken).await.map_err(|error| closed(&error))?;
        line.extend_from_slice(&taken);
    }
    parse_line(&line).ok_or(ProxyFailure::Malformed)
}

async fn read_binary(stream: &mut TcpStream) -> Result<Told, ProxyFailure> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(|error| closed(&error))?;
    let [version_and_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_BODY {
        return Err(ProxyFailure::Malformed);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(|error| closed(&error))?;
    parse_binary(version_and_command, family, &body).ok_or(ProxyFailure::Malformed)
}

fn closed(error: &io::Error) -> ProxyFailure {
    log::debug!("a PROXY header was cut off: {error}");
    ProxyFailure::Closed
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n`.
fn parse_line(line: &[u8]) -> Option<Told> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(Told::Nothing);
    }
    let mut words = text.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    words.next().is_none().then_some(())?;
    Some(Told::Addresses {
        source: SocketAddr::new(address(source)?, source_port),
        destination: SocketAddr::new(address(destination)?, destination_port),
    })
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_binary(version_and_command: u8, family: u8, body: &[u8]) -> Option<Told> {
    match version_and_command {
        0x20 => return Some(Told::Nothing),
        0x21 => {}
        _ => return None,
    }
    match family {
        // TCP over IPv4, over IPv6; what stands behind the addresses are extensions.
        0x11 => addresses::<4>(body),
        0x21 => addresses::<16>(body),
        0x00 => Some(Told::Nothing),
        _ => None,
    }
}

fn addresses<const N: usize>(body: &[u8]) -> Option<Told>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let destination_port = rest.first_chunk()?;
    Some(Told::Addresses {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn told(source: &str, destination: &str) -> Option<Told> {
        Some(Told::Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn lines() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", told("192.0.2.7:51234", "198.51.100.1:443")),
            ("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", told("[2001:db8::7]:1", "[::1]:65535")),
            ("PROXY UNKNOWN\r\n", Some(Told::Nothing)),
            ("PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", Some(Told::Nothing)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 9\r\n", None),
            ("PROXY TCP4 192.0.2.7  198.51.100.1 51234 443\r\n", None),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", None),
            ("PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n", None),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n", None),
            ("proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n", None),
            ("PROXY UNKNOWNS\r\n", None),
        ] {
            assert_eq!(parse_line(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn binary() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 1, 0xbb];
        let expected = told("192.0.2.7:51234", "198.51.100.1:443");
        assert_eq!(parse_binary(0x21, 0x11, &v4), expected);
        assert_eq!(parse_binary(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), expected, "extensions");
        let v6 = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 80, 0, 81]].concat();
        assert_eq!(parse_binary(0x21, 0x21, &v6), told("[::1]:80", "[::2]:81"));
        assert_eq!(parse_binary(0x20, 0, &[]), Some(Told::Nothing));
        assert_eq!(parse_binary(0x21, 0, &v4), Some(Told::Nothing));
        for (command, family, body) in [
            (0x21, 0x11, &v4[..11]),
            (0x21, 0x21, &v4),
            (0x11, 0x11, &v4),
            (0x22, 0x11, &v4),
            (0x21, 0x12, &v4),
        ] {
            assert_eq!(parse_binary(command, family, body), None, "{command:x} {family:x}");
        }
    }

    /// What comes of bytes sent in pieces, and what is left behind the header.
    async fn sent(pieces: &[&[u8]]) -> (Result<Told, ProxyFailure>, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let client = tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.set_nodelay(true).unwrap();
            for piece in pieces {
                // The reader may have given up.
                let _ = client.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let told = read(&mut stream).await;
        client.await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        (told, rest)
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_taken() {
        let v2 = [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &[192, 0, 2, 7, 1, 2, 3, 4, 0, 1, 0, 2]].concat();
        let line = &b"PROXY TCP4 192.0.2.7 1.2.3.4 1 2\r\n"[..];
        for header in [&v2[..], line] {
            let whole = [header, b"GET /"].concat();
            let single: Vec<&[u8]> = whole.chunks(1).collect();
            for pieces in [&[&whole[..]][..], &single] {
                let (told_then, rest) = sent(pieces).await;
                assert_eq!(told_then.ok(), told("192.0.2.7:1", "1.2.3.4:2"));
                assert_eq!(rest, b"GET /");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let large = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for (bytes, failure) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], ProxyFailure::Missing),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", ProxyFailure::Missing),
            (b"PROXY", ProxyFailure::Closed),
            (b"PROXY TCP4 192.0.2", ProxyFailure::Closed),
            (&endless, ProxyFailure::Malformed),
            (&large, ProxyFailure::Malformed),
            (b"", ProxyFailure::Closed),
        ] {
            assert_eq!(sent(&[bytes]).await.0, Err(failure), "{bytes:?}");
        }
    }
}
