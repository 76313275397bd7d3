//! The watchdog: systemd is told that the service lives only as long as its request path answers.
//!
//! A [`Probe`](Probes::check) is a real connection over loopback to one of our own listeners. The accept loop knows it by its
//! address, which was noted before it connected, so that it costs other connections one look at a number and other requests
//! nothing. It skips what is for strangers (TLS, the PROXY protocol, floods) and passes the rest: the kernel's queue, the accept
//! loop, a task on a worker thread, the reading of the head, the snapshot, the table of routes, the one writer of answers. No
//! step runs and no upstream is asked, because a gateway must not be restarted for the faults of others. It is neither logged
//! nor counted.

use super::systemd::Notify;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::watch;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The pause after a check that failed: there are several within the watchdog's time, since one may fail under load.
const AGAIN: Duration = Duration::from_secs(1);

/// The name does not exist (RFC 6761 section 6.4), so whoever else may get this will not have it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: tollgate.invalid\r\nconnection: close\r\n\r\n";

/// What the answer must begin with, up to the status.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// What came of a check.
#[derive(Debug)]
pub enum Verdict {
    /// There was a well-formed answer in time.
    Answered,
    /// There was none.
    Silent(io::Error),
    /// Nothing can be said: there was no socket to ask with. A process that has run out of ports or descriptors may serve all
    /// its connections well.
    Untried(io::Error),
}

/// Our own connections to our own listeners, which the accept loops know by the address they come from.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicUsize,
    from: Mutex<Vec<SocketAddr>>,
}

impl Probes {
    /// Whether a connection from `peer` is a probe. Nobody else can have the address: it is bound while it is noted, and is one
    /// of this machine.
    pub fn holds(&self, peer: SocketAddr) -> bool {
        self.0.count.load(Ordering::Acquire) > 0 && self.0.from.lock().contains(&peer)
    }

    /// Asks the listener at `address`; takes two seconds at most.
    pub async fn check(&self, address: SocketAddr) -> Verdict {
        let to = SocketAddr::new(reachable(address.ip()), address.port());
        let bound = bound(to.ip()).and_then(|socket| socket.local_addr().map(|from| (socket, from)));
        let (socket, from) = match bound {
            Ok(bound) => bound,
            Err(error) => return Verdict::Untried(error),
        };
        let _noted = self.note(from);
        match tokio::time::timeout(LIMIT, ask(socket, to)).await {
            Ok(Ok(())) => Verdict::Answered,
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => Verdict::Untried(error),
            Ok(Err(error)) => Verdict::Silent(error),
            Err(_) => Verdict::Silent(io::ErrorKind::TimedOut.into()),
        }
    }

    fn note(&self, from: SocketAddr) -> Noted<'_> {
        self.0.from.lock().push(from);
        self.0.count.fetch_add(1, Ordering::Release);
        Noted { probes: self, from }
    }
}

/// A probe under way.
struct Noted<'a> {
    probes: &'a Probes,
    from: SocketAddr,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.probes.0.count.fetch_sub(1, Ordering::Release);
        self.probes.0.from.lock().retain(|from| *from != self.from);
    }
}

/// Where a listener is reached that listens on every address.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// A socket with an address of its own, which is known before it connects.
fn bound(address: IpAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(address, 0))?;
    Ok(socket)
}

async fn ask(socket: TcpSocket, to: SocketAddr) -> io::Result<()> {
    let mut stream = socket.connect(to).await?;
    stream.write_all(REQUEST).await?;
    let mut begin = [0; ANSWER.len() + 3];
    stream.read_exact(&mut begin).await?;
    match begin.strip_prefix(ANSWER) {
        Some(status) if status.iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Feeds systemd's watchdog while every listener answers, and while the process drains and none does any more.
pub struct Watchdog {
    notify: Notify,
    every: Duration,
    probes: Probes,
    listeners: Vec<SocketAddr>,
    stopping: watch::Receiver<bool>,
}

impl Watchdog {
    /// One for these listening addresses; `None` when systemd does not ask for it.
    ///
    /// Belongs where the doors are opened.
    pub fn new(
        notify: Notify,
        probes: Probes,
        listeners: Vec<SocketAddr>,
        stopping: watch::Receiver<bool>,
    ) -> Option<Watchdog> {
        let every = notify.watchdog_every()?;
        Some(Watchdog { notify, every, probes, listeners, stopping })
    }

    /// Feeds until another process is the main one. Not a supervised task: when this panics, being killed is right.
    pub async fn feed(self) {
        // Systemd begins to wait when the service is ready. A successor is not heard before it is the main process, which it is
        // a moment after it serves.
        tokio::time::sleep(self.every / 2).await;
        while !self.notify.is_handed_over() {
            let pause = if self.lives().await {
                self.notify.watchdog();
                self.every
            } else {
                AGAIN.min(self.every)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the service may be said to live.
    async fn lives(&self) -> bool {
        for listener in &self.listeners {
            if *self.stopping.borrow() {
                return true;
            }
            match self.probes.check(*listener).await {
                Verdict::Answered => {}
                Verdict::Untried(error) => log::warn!("watchdog: {listener} could not be asked: {error}"),
                // The listeners may have been closed meanwhile.
                Verdict::Silent(error) if !*self.stopping.borrow() => {
                    log::error!("watchdog: no answer from our own listener {listener}: {error}");
                    return false;
                }
                Verdict::Silent(_) => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LOOPBACK: &str = "127.0.0.1:0";

    /// A listener that answers each connection with `answer`, if it is one of `probes`.
    async fn answering(address: &str, probes: Probes, answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let bound = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                assert!(probes.holds(peer), "{peer} is not known");
                drop(stream.write_all(answer).await);
                drop(stream.read(&mut [0; 512]).await);
            }
        });
        bound
    }

    #[tokio::test]
    async fn any_well_formed_answer_will_do() {
        let probes = Probes::default();
        for address in [LOOPBACK, "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = answering(address, probes.clone(), b"HTTP/1.1 404 Not Found\r\n\r\n").await;
            assert!(matches!(probes.check(listener).await, Verdict::Answered), "{address}");
        }
        assert!(probes.0.from.lock().is_empty(), "a probe that is over is forgotten");
        assert!(!probes.holds(LOOPBACK.parse().unwrap()));
    }

    #[tokio::test]
    async fn no_answer_or_a_wrong_one_is_silence() {
        let probes = Probes::default();
        for answer in [&b""[..], b"HTTP/1.1 OK!\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"] {
            let listener = answering(LOOPBACK, probes.clone(), answer).await;
            assert!(matches!(probes.check(listener).await, Verdict::Silent(_)), "{answer:?}");
        }
        let gone = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
        assert!(matches!(probes.check(gone).await, Verdict::Silent(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_does_not_accept_is_silent() {
        let stuck = TcpListener::bind(LOOPBACK).await.unwrap();
        let verdict = Probes::default().check(stuck.local_addr().unwrap()).await;
        assert!(matches!(verdict, Verdict::Silent(error) if error.kind() == io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_proves_nothing() {
        // Reserved for documentation (RFC 5737): no interface has it.
        let verdict = Probes::default().check("192.0.2.1:80".parse().unwrap()).await;
        assert!(matches!(verdict, Verdict::Untried(_)), "{verdict:?}");
    }
}
