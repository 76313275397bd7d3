//! A scripted HTTP/1.1 server: plain, TLS or on a unix socket. It records every request as it arrived.

use super::answer::Answer;
use super::message::Request;
use super::ports::Reserved;
use super::wire::{Accepted, Wire};
use super::{DEADLINE, assert_eventually, raise_file_limit};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

type Script = dyn Fn(Wire, usize, &Seen) -> io::Result<()> + Send + Sync;

/// What an upstream has seen so far.
#[derive(Default)]
pub struct Seen {
    requests: Mutex<Vec<Request>>,
    asked: AtomicUsize,
    failed_handshakes: AtomicUsize,
}

/// A running scripted server.
pub struct Upstream {
    addr: SocketAddr,
    script: Arc<Script>,
    seen: Arc<Seen>,
    tls: Option<Arc<ServerConfig>>,
    door: Mutex<Door>,
}

/// Whether it listens right now.
enum Door {
    Open(Arc<Listening>),
    Shut(Reserved),
}

/// One listening socket with its connections, until it is closed.
struct Listening {
    stopped: AtomicBool,
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

impl Upstream {
    /// Answers every request with what `answer` says.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Upstream::listen(Reserved::any(), None, answer)
    }

    /// Answers every request with itself as JSON.
    pub fn echo() -> Self {
        Upstream::start(Answer::echo)
    }

    /// Answers every request with this text: enough to tell upstreams apart.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Upstream::start(move |_| Answer::ok(name.as_str()))
    }

    /// Listens on an address reserved before; with TLS when a configuration is given.
    pub fn listen(
        at: Reserved,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Upstream::run(at, tls, Arc::new(move |wire, number, seen| converse(wire, number, seen, &answer)))
    }

    /// Hands every connection to `script`, which reads and writes what it likes.
    pub fn raw(script: impl Fn(Wire) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Upstream::run(Reserved::any(), None, Arc::new(move |wire, _, _| script(wire)))
    }

    /// The same over TLS.
    pub fn raw_over(
        tls: Arc<ServerConfig>,
        script: impl Fn(Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Upstream::run(Reserved::any(), Some(tls), Arc::new(move |wire, _, _| script(wire)))
    }

    /// Answers on a unix socket; lives until the test process ends.
    pub fn on_unix_socket(path: &Path, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        let listener = UnixListener::bind(path).unwrap();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || converse(Wire::new(stream), number, &Seen::default(), &*answer));
            }
        });
    }

    fn run(at: Reserved, tls: Option<Arc<ServerConfig>>, script: Arc<Script>) -> Self {
        raise_file_limit();
        let upstream =
            Upstream { addr: at.addr(), script, seen: Arc::default(), tls, door: Mutex::new(Door::Shut(at)) };
        upstream.up();
        upstream
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until `count` requests have arrived.
    pub fn wait_for_requests(&self, count: usize) {
        assert_eventually(DEADLINE, &format!("{count} requests at the upstream"), || {
            self.requests().len() >= count
        });
    }

    /// How many connections carried at least one request; health probes by mere connecting do not count.
    pub fn connections(&self) -> usize {
        self.seen.asked.load(Ordering::SeqCst)
    }

    /// How many connections ended in a failed TLS handshake.
    pub fn failed_handshakes(&self) -> usize {
        self.seen.failed_handshakes.load(Ordering::SeqCst)
    }

    /// Stops listening and cuts its connections; the address stays reserved, so that connecting is refused.
    pub fn down(&self) {
        let mut door = self.door.lock().unwrap();
        if let Door::Open(listening) = &*door {
            listening.close(self.addr);
            *door = Door::Shut(reserve_again(self.addr));
        }
    }

    /// Listens again where it did before.
    pub fn up(&self) {
        let mut door = self.door.lock().unwrap();
        let Door::Shut(_) = &*door else { return };
        let listening =
            Arc::new(Listening { stopped: AtomicBool::new(false), connections: Mutex::default() });
        let Door::Shut(reserved) = std::mem::replace(&mut *door, Door::Open(Arc::clone(&listening))) else {
            return;
        };
        let (script, seen, tls) = (Arc::clone(&self.script), Arc::clone(&self.seen), self.tls.clone());
        let listener = reserved.listen();
        std::thread::spawn(move || listening.serve(&listener, &script, &seen, tls.as_ref()));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Door::Open(listening) = &*self.door.lock().unwrap() {
            listening.close(self.addr);
        }
    }
}

impl Listening {
    fn serve(
        &self,
        listener: &TcpListener,
        script: &Arc<Script>,
        seen: &Arc<Seen>,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            stream.set_nodelay(true).unwrap();
            let stream = Arc::new(stream);
            self.connections.lock().unwrap().push(Arc::downgrade(&stream));
            let (script, seen, tls) = (Arc::clone(script), Arc::clone(seen), tls.cloned());
            std::thread::spawn(move || {
                // An error here is a gateway that went away: the test looks at the other end.
                let _gone = accept(Accepted(stream), tls, &seen).and_then(|wire| script(wire, number, &seen));
            });
        }
    }

    fn close(&self, addr: SocketAddr) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then drops the listener.
        let _refused = TcpStream::connect(addr);
        for connection in self.connections.lock().unwrap().drain(..).filter_map(|weak| weak.upgrade()) {
            let _already_gone = connection.shutdown(Shutdown::Both);
        }
    }
}

fn reserve_again(addr: SocketAddr) -> Reserved {
    super::eventually(DEADLINE, "the address to be free again", || match Reserved::at(addr) {
        Ok(reserved) => Some(reserved),
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) => panic!("{addr}: {error}"),
    })
}

fn accept(mut stream: Accepted, tls: Option<Arc<ServerConfig>>, seen: &Seen) -> io::Result<Wire> {
    let Some(config) = tls else { return Ok(Wire::new(stream)) };
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            // A peer that merely connects and leaves is a health probe.
            let refused = usize::from(error.kind() == ErrorKind::InvalidData);
            seen.failed_handshakes.fetch_add(refused, Ordering::SeqCst);
            return Err(error);
        }
    }
    Ok(Wire::new(StreamOwned::new(connection, stream)))
}

fn converse(
    mut wire: Wire,
    number: usize,
    seen: &Seen,
    answer: &(impl Fn(&Request) -> Answer + ?Sized),
) -> io::Result<()> {
    let mut first = true;
    while let Some(mut request) = Request::read_head(&mut wire)? {
        if std::mem::take(&mut first) {
            seen.asked.fetch_add(1, Ordering::SeqCst);
        }
        request.connection = number;
        if request.headers.has_word("expect", "100-continue") {
            wire.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.read_body(&mut wire)?;
        seen.requests.lock().unwrap().push(request.clone());
        match answer(&request).play(wire, &request)? {
            Some(open) => wire = open,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// A barrier that a test opens: an answer that waits at it is in flight for as long as the test wants.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Blocks until the gate is open, at most for the deadline.
    pub fn wait(&self) {
        let (open, changed) = &*self.0;
        let guard = open.lock().unwrap();
        let _late = changed.wait_timeout_while(guard, DEADLINE, |open| !*open).unwrap();
    }

    /// Lets everybody through, for ever.
    pub fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().unwrap() = true;
        changed.notify_all();
    }
}
