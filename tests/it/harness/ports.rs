//! Loopback addresses that nobody else can take while a test needs them.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// A bound address on which nobody listens: connecting to it is refused, and no other process can have it.
pub struct Reserved {
    socket: Socket,
    addr: SocketAddr,
}

impl Reserved {
    /// Any free port of 127.0.0.1.
    pub fn any() -> Self {
        Reserved::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
    }

    /// One address.
    pub fn at(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of the listener that was here before may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Reserved { socket, addr })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts to listen.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(1024).unwrap();
        self.socket.into()
    }
}

/// One free port, reserved on `count` loopback addresses from 127.0.0.2 on: what a DNS name with several addresses needs.
pub fn share_a_port(count: u8) -> Vec<Reserved> {
    let on = |host: u8, port: u16| Reserved::at((IpAddr::from([127, 0, 0, host]), port).into());
    for _ in 0..100 {
        let first = on(2, 0).unwrap();
        let port = first.addr().port();
        let others: io::Result<Vec<Reserved>> = (3..2 + count).map(|host| on(host, port)).collect();
        if let Ok(others) = others {
            return std::iter::once(first).chain(others).collect();
        }
    }
    panic!("no port is free on {count} loopback addresses");
}
