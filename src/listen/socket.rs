//! What bytes go over: a socket, or TLS over one.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;

/// The socket under a [`Connection`](super::connection::Connection), or one to a target.
#[derive(Debug)]
pub enum Socket {
    /// TCP. TCP_NODELAY is expected to be set: connections inherit it from what `bind_tcp` makes.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, after its handshake. Boxed, because its state is ten times as large as the others.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS to a target, over either of the first two, after its handshake. An end that was not announced is an error here: it
    /// may be a cut (RFC 9112 section 9.8).
    TlsTo(Box<client::TlsStream<Socket>>),
}

impl Socket {
    /// Waits until there may be something to read. Cancel safe.
    pub(super) async fn has_come(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.readable().await,
            Socket::Unix(stream) => stream.readable().await,
            // There may be something in the session.
            Socket::Tls(_) | Socket::TlsTo(_) => Ok(()),
        }
    }

    /// Sends some of `slices` in one system call; returns how much.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, slices) {
            // A short send(2) tells tokio that the socket is full; a short writev(2) does not.
            (Socket::Tcp(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Socket::Unix(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Socket::Tls(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Socket::TlsTo(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Socket::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Socket::Unix(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            // Slices end up in common records.
            (Socket::Tls(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Socket::TlsTo(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => match ready!(Pin::new(stream).poll_read(cx, buf)) {
                // Many clients just close. Whether a request is whole is told by its framing, never by the end.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
            Socket::TlsTo(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // What the socket did not take at once stays in the session.
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Socket::TlsTo(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tcp(_) | Socket::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::TlsTo(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
            Socket::Tls(stream) => stream.get_ref().0.as_raw_fd(),
            Socket::TlsTo(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Socket {
        Socket::Unix(stream)
    }
}

impl From<Box<client::TlsStream<Socket>>> for Socket {
    fn from(stream: Box<client::TlsStream<Socket>>) -> Socket {
        Socket::TlsTo(stream)
    }
}

impl From<Box<TlsStream<TcpStream>>> for Socket {
    fn from(stream: Box<TlsStream<TcpStream>>) -> Socket {
        Socket::Tls(stream)
    }
}

/// Sends what the kernel takes without waiting.
pub(super) fn send_at_once(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<usize> {
    struct AtOnce<'a>(&'a TcpStream);
    impl io::Write for AtOnce<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.try_write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (socket, session) = stream.get_mut();
    io::Write::write_all(&mut session.writer(), bytes)?;
    while session.wants_write() {
        session.write_tls(&mut AtOnce(socket))?;
    }
    Ok(bytes.len())
}
