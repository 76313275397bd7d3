//! A small HTTP server for tests, in place of whoever is asked.

use super::Verdict;
use super::{Check, Provider};
use crate::exchange::{Exchange, RequestHead};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::{Client, Resolver};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// Status, further fields with their line ends, body.
    This(u16, &'static str, String),
    /// Nothing, ever.
    Nothing,
    /// Not HTTP.
    Noise,
}

pub(super) fn ok(body: impl Into<String>) -> Says {
    Says::This(200, "", body.into())
}

/// The server. It answers by path and keeps what it was asked.
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    says: Mutex<Vec<(String, Says)>>,
    asked: Mutex<Vec<String>>,
    pub(super) delay: Mutex<Duration>,
}

impl StandIn {
    pub(super) async fn new() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(StandIn {
            address: listener.local_addr().unwrap(),
            says: Mutex::default(),
            asked: Mutex::default(),
            delay: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint::new(&self.url(path), None, &client(), &resolver()).unwrap()
    }

    /// From now on, this is the answer under the path.
    pub(super) fn say(&self, path: &str, says: Says) {
        let mut all = self.says.lock();
        all.retain(|(known, _)| known != path);
        all.push((path.to_owned(), says));
    }

    /// The requests so far, head and body.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// How often it was asked under this path.
    pub(super) fn count(&self, path: &str) -> usize {
        let target = format!(" {path} HTTP/1.1\r\n");
        self.asked.lock().iter().filter(|request| request.contains(&target)).count()
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        while let Some(request) = read(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            self.asked.lock().push(request);
            let says =
                self.says.lock().iter().find(|(known, _)| *known == path).map(|(_, says)| says.clone());
            let delay = *self.delay.lock();
            tokio::time::sleep(delay).await;
            let text = match says {
                Some(Says::This(status, fields, body)) => {
                    format!("HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
                }
                Some(Says::Nothing) => return std::future::pending().await,
                Some(Says::Noise) => "\u{1}\u{2}this is not HTTP\r\n\r\n".to_owned(),
                None => "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// One request with its body.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let declared = text.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
            let length: usize = declared.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

pub(super) fn client() -> Arc<Client> {
    static CLIENT: OnceLock<Arc<Client>> = OnceLock::new();
    Arc::clone(CLIENT.get_or_init(|| Arc::new(Client::new(None))))
}

/// A resolver that nobody answers.
pub(super) fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap())
}

pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHead {
    let (mut head, ()) = http::Request::builder().method(method).uri(target).body(()).unwrap().into_parts();
    for (name, value) in fields {
        head.headers.append(*name, value.parse().unwrap());
    }
    head
}

/// The verdict, and whether it was known at once.
pub(super) async fn judged(provider: &dyn Provider, head: &RequestHead, x: &Exchange) -> (Verdict, bool) {
    match provider.check(head, x) {
        Check::Now(verdict) => (verdict, true),
        Check::Later(waiting) => (waiting.await, false),
    }
}

/// A verdict in a word.
pub(super) fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Absent => "absent".to_owned(),
        Verdict::Accepted(identity) => format!("accepted {}", identity.subject),
        Verdict::Refused(refusal) => format!("refused {} {}", refusal.kind.status, refusal.why),
        Verdict::Unavailable(_) => "unavailable".to_owned(),
        Verdict::Answered(reply) => format!("answered {}", reply.status),
    }
}
