//! Where requests come from.

pub mod alarm;
pub mod bind;
pub mod chunks;
pub mod connection;
pub mod document;
pub mod flood;
pub mod frames;
pub mod framing;
pub mod http1;
mod patience;
pub mod proxy_protocol;
mod socket;
pub mod tls;
pub mod turn;

use crate::value::{Name, Networks, Normalize, Rate};
use document::RedirectHttps;
use flood::Flood;
use http::HeaderMap;
use prometheus::IntCounter;
use proxy_protocol::ProxyProtocol;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;

/// A listener, ready to run.
pub struct Listener {
    /// Its name.
    pub name: Name,
    /// Addresses it binds.
    pub binds: Vec<SocketAddr>,
    /// Whether clients may speak HTTP/1.1.
    pub http1: bool,
    /// TLS, unless clients speak in cleartext.
    pub tls: Option<Arc<Tls>>,
    /// Who speaks the PROXY protocol, if anybody does.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How requests in cleartext are sent to https, on a listener that does nothing else with them.
    pub redirect_https: Option<RedirectHttps>,
    /// Whether clients may speak HTTP/2 with prior knowledge.
    pub h2c: bool,
    /// Proxies whose word about the client is taken.
    pub trusted: Networks,
    /// How paths are brought to their normal form.
    pub normalize: Normalize,
    /// What a client may send.
    pub limits: Limits,
    /// The guard against floods, and what it counts refusals with.
    pub flood: Option<(Arc<Flood>, IntCounter)>,
}

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of all header fields together.
    pub header_bytes: u64,
    /// Most header fields.
    pub headers: usize,
    /// Longest request target in bytes.
    pub uri: u64,
    /// How long the head of an HTTP/1.1 request may take from its first byte on.
    pub header_time: Duration,
    /// How long a client may pause within the body of a request.
    pub body_idle: Duration,
    /// Bytes a second that the body of a request must come with, on average and after a while; 0 for no such limit.
    pub body_rate: u64,
    /// How long a client may take nothing of what is sent to it.
    pub send_idle: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// Most requests on one HTTP/1.1 connection.
    pub requests: Option<u64>,
    /// Most connections at once.
    pub connections: usize,
    /// Most connections at once from one address.
    pub per_ip: usize,
    /// Most HTTP/2 streams at once on one connection.
    pub h2_streams: u32,
    /// Bytes that a client may send ahead on an HTTP/2 stream, and on a connection.
    pub h2_window: u32,
    /// Most requests on one HTTP/2 connection.
    pub h2_requests: u64,
    /// Streams that a client may reset on an HTTP/2 connection: so many at once, and in the time as many again.
    pub h2_resets: Rate,
    /// Frames that ask for nothing, which a client may send on an HTTP/2 connection: likewise.
    pub h2_frames: Rate,
    /// How long may pass between the beginning of a connection and its first request's: PROXY protocol and TLS.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 32 << 10,
            headers: 100,
            uri: 8 << 10,
            header_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_rate: 240,
            send_idle: Duration::from_secs(60),
            keepalive: Duration::from_secs(75),
            requests: None,
            connections: 100_000,
            per_ip: 20_000,
            h2_streams: 100,
            h2_window: 1 << 20,
            h2_requests: 100_000,
            h2_resets: Rate { count: 1000, period: Duration::from_secs(10) },
            h2_frames: Rate { count: 10_000, period: Duration::from_secs(10) },
            handshake: Duration::from_secs(10),
        }
    }
}

/// The client behind trusted proxies: `X-Forwarded-For` is walked from the right until an address is not a trusted proxy
/// (RFC 7239 section 7.4 has the reasons). What cannot be read ends the walk at the last address that could.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer;
    let lines = headers.get_all("x-forwarded-for").iter().rev().map(|line| line.to_str().unwrap_or_default());
    for hop in lines.flat_map(|line| line.rsplit(',')) {
        if !trusted.contains(client) {
            break;
        }
        let Some(address) = hop_address(hop.trim()) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_walk_stops_at_the_first_stranger() {
        let trusted = Networks::new(["10.0.0.0/8".parse().unwrap()]);
        let client = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(client("203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
