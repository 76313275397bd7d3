//! Making the sockets tollgate listens on, before any privilege is dropped and before any worker runs.
//!
//! The engine would bind late, retry for half a minute and then leave a dead listener behind. A gateway that cannot
//! listen where it was told to must say so at once.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// How many connections may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65535;

/// How much the kernel keeps of what is written and not sent. Without this, every client that reads slowly would have megabytes
/// of it; what is under way to the client does not count.
const MOST_UNSENT: u32 = 128 << 10;

/// Owner and group may connect, nobody else.
const UNIX_MODE: u32 = 0o660;

/// Binds and listens on a TCP address. Port 0 takes a free port.
///
/// An IPv6 socket takes IPv6 only, so that `[::]:80` and `0.0.0.0:80` can stand side by side. The socket has TCP_NODELAY,
/// which Linux hands on to every connection accepted from it: one system call less a connection. So it does with
/// TCP_NOTSENT_LOWAT.
///
/// # Errors
/// Those of the system, with the address and a hint; the kind is kept.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    listen_tcp(address).map_err(|error| explained(&address, &error))
}

/// Binds and listens on a Unix socket that owner and group may use (mode 0660).
///
/// A socket left behind by a dead process is replaced. Directories are not created.
///
/// # Errors
/// Those of the system, with the path and a hint; the kind is kept. `AddrInUse` if somebody listens there,
/// `AlreadyExists` if the path is something other than a socket.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    listen_unix(path).map_err(|error| explained(&path.display(), &error))
}

/// Prepares a TCP listener that another process made (socket activation, upgrade) as [`bind_tcp`] would have.
///
/// # Errors
/// Those of the system.
pub fn adopt_tcp(listener: TcpListener) -> io::Result<TcpListener> {
    let socket = Socket::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(MOST_UNSENT)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    adopt_tcp(socket.into())
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        outcome => outcome?,
    }
    // Before listen(2) nobody can connect, so there is no moment at which the umask decides who may.
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener with a full backlog would hold a blocking probe; it answers this one with WouldBlock.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

fn explained(place: &dyn fmt::Display, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => ": another process listens there",
        ErrorKind::AddrNotAvailable => ": no interface of this machine has that address",
        ErrorKind::AlreadyExists => ": something that is not a socket is in the way",
        ErrorKind::InvalidInput => ": the path of a socket has at most 107 bytes",
        ErrorKind::NotFound => ": the directory does not exist",
        ErrorKind::PermissionDenied => {
            ": ports below 1024 need root or CAP_NET_BIND_SERVICE, sockets a directory one may write to"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {place}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    const LOOPBACK: &str = "127.0.0.1:0";

    #[test]
    fn a_tcp_listener_takes_connections_and_hands_on_nodelay() {
        let listener = bind_tcp(LOOPBACK.parse().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        assert!(served.nodelay().unwrap());
    }

    #[test]
    fn a_taken_port_is_refused_with_the_address_and_a_hint() {
        let first = bind_tcp(LOOPBACK.parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_tcp(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.ends_with("another process listens there"), "{text}");
    }

    #[test]
    fn a_port_can_be_bound_again_while_old_connections_linger() {
        let listener = bind_tcp(LOOPBACK.parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (served, _) = listener.accept().unwrap();
        drop(served); // closes first, so its side goes to TIME_WAIT
        drop((client, listener));
        bind_tcp(address).unwrap();
    }

    #[test]
    fn both_wildcards_can_be_bound_on_one_port() {
        let Ok(six) = bind_tcp("[::]:0".parse().unwrap()) else {
            return; // no IPv6 here
        };
        let port = six.local_addr().unwrap().port();
        bind_tcp(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    }

    #[test]
    fn a_foreign_address_is_explained() {
        let error = bind_tcp("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("no interface"), "{error}");
    }

    #[test]
    fn a_unix_listener_has_mode_0660_and_takes_connections() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = bind_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(bind_unix(&path).unwrap());
        assert!(path.exists(), "a dead listener leaves its socket");
        let live = bind_unix(&path).unwrap();
        let error = bind_unix(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(live.accept().is_ok(), "the probe's connection or the client's");
    }

    #[test]
    fn a_file_in_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = bind_unix(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn missing_directories_and_long_paths_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind_unix(&folder.path().join("none/a.sock")).unwrap_err();
        assert!(error.to_string().ends_with("the directory does not exist"), "{error}");
        let error = bind_unix(&folder.path().join("x".repeat(120))).unwrap_err();
        assert!(error.to_string().contains("107 bytes"), "{error}");
    }
}
