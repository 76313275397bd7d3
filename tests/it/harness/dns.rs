//! A tiny DNS server over UDP: A and AAAA answers that a test changes while it runs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsMode {
    #[default]
    Answer,
    /// Says nothing at all.
    Silent,
    /// Says SERVFAIL.
    ServFail,
    /// Says that no name exists.
    NxDomain,
}

#[derive(Default)]
struct Zone {
    mode: DnsMode,
    records: HashMap<String, (Vec<IpAddr>, u32)>,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    queries: AtomicUsize,
    stopped: AtomicBool,
}

/// A running DNS server.
pub struct DnsServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl DnsServer {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let addr = socket.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serve(&socket, &serving));
        DnsServer { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Says from now on that `name` has these addresses, for `ttl` seconds.
    pub fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.shared.zone.lock().unwrap().records.insert(name.to_owned(), (addresses, ttl));
    }

    /// Behaves so from now on.
    pub fn mode(&self, mode: DnsMode) {
        self.shared.zone.lock().unwrap().mode = mode;
    }

    /// How many queries have arrived.
    pub fn queries(&self) -> usize {
        self.shared.queries.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut packet = [0; 1500];
    while !shared.stopped.load(Ordering::SeqCst) {
        let Ok((length, peer)) = socket.recv_from(&mut packet) else { continue };
        shared.queries.fetch_add(1, Ordering::SeqCst);
        let reply = reply(&packet[..length], &shared.zone.lock().unwrap());
        if let Some(reply) = reply {
            let _gone = socket.send_to(&reply, peer);
        }
    }
}

/// RFC 1035, section 4: header, the question as asked, the answers.
fn reply(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, question_end) = question(query)?;
    let kind = u16::from_be_bytes([query[question_end - 4], query[question_end - 3]]);
    let (addresses, ttl) = zone.records.get(&name).cloned().unwrap_or_default();
    let answers: Vec<&IpAddr> =
        addresses.iter().filter(|address| kind == if address.is_ipv4() { 1 } else { 28 }).collect();
    let (code, answers) = match zone.mode {
        DnsMode::Silent => return None,
        DnsMode::ServFail => (2, Vec::new()),
        DnsMode::NxDomain => (3, Vec::new()),
        DnsMode::Answer if !zone.records.contains_key(&name) => (3, Vec::new()),
        DnsMode::Answer => (0, answers),
    };
    let mut reply = query[..2].to_vec();
    reply.extend([0x85, 0x80 | code, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0]);
    reply.extend(&query[12..question_end]);
    for address in answers {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // 0xc00c: the name of the question, at offset 12.
        reply.extend([0xc0, 0x0c]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// The name asked for, in lower case without its last dot, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return (query.len() >= at + 4).then(|| (labels.join("."), at + 4));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
