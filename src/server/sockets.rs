//! The sockets that this process listens on: bound anew, or taken over from the process before.

use super::accept::Listening;
use super::systemd::Activated;
use super::wire::Place;
use crate::admin;
use crate::config::document::AdminBind;
use crate::listen::bind::{adopt_tcp, bind_tcp, bind_unix};
use crate::snapshot::{DEFAULT_ADMIN, Snapshot};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// All of them, and second handles for a successor.
pub(super) struct Sockets {
    pub listening: Vec<Listening>,
    pub admin: Option<admin::Socket>,
    pub legacy: Legacy,
}

/// Handles of listening sockets and where they listen.
#[derive(Default)]
pub(super) struct Legacy(pub Vec<(Place, OwnedFd)>);

impl Legacy {
    /// The socket for a place, if there is one.
    fn take(&mut self, wanted: &Place) -> Option<OwnedFd> {
        let exact = self.0.iter().position(|(place, _)| place == wanted);
        let found = exact.or_else(|| self.0.iter().position(|(place, _)| is_same_address(place, wanted)))?;
        Some(self.0.swap_remove(found).1)
    }

    fn keep(&mut self, place: Place, socket: &impl AsFd) -> io::Result<()> {
        self.0.push((place, socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }
}

/// A listener may have another name now. Port 0 is no address.
fn is_same_address(place: &Place, wanted: &Place) -> bool {
    match (place, wanted) {
        (Place::Listener { bind, .. }, Place::Listener { bind: other, .. }) => {
            bind == other && bind.port() != 0
        }
        _ => false,
    }
}

impl Sockets {
    /// Opens what the snapshot wants. What is `inherited` and fits is used, the rest of it is closed; next what systemd gave.
    ///
    /// # Errors
    /// A place that cannot be listened on, in a sentence.
    pub(super) fn open(
        snapshot: &Snapshot,
        admin: &AdminBind,
        mut inherited: Legacy,
        mut activated: Activated,
    ) -> Result<Sockets, String> {
        let mut legacy = Legacy::default();
        let mut listening = Vec::new();
        for (number, listener) in (0..).zip(&snapshot.listeners) {
            for bind in &listener.binds {
                let place = Place::Listener { name: listener.name.to_string(), bind: *bind };
                let given = inherited.take(&place).or_else(|| activated.take_tcp(*bind));
                let socket = tcp(*bind, given);
                let socket = socket.and_then(|socket| legacy.keep(place, &socket).map(|()| socket));
                let socket = socket.map_err(|error| format!("listener `{}`: {error}", listener.name))?;
                let address = socket.local_addr().unwrap_or(*bind);
                listening.push(Listening { number, name: listener.name.clone(), address, socket });
            }
        }
        let admin = open_admin(admin, (&mut inherited, &mut activated), &mut legacy)?;
        activated.close_unused();
        Ok(Sockets { listening, admin, legacy })
    }

    /// The ports that were free where port 0 was asked for, so that whoever started us can find them.
    pub(super) fn announce(&self) {
        for Listening { name, address, .. } in &self.listening {
            crate::observe::log::say(format_args!("listening {name} {address}"));
        }
        if let Some(admin) = &self.admin {
            crate::observe::log::say(format_args!("listening admin {admin}"));
        }
    }
}

fn tcp(bind: SocketAddr, inherited: Option<OwnedFd>) -> io::Result<TcpListener> {
    match inherited {
        Some(socket) => adopt_tcp(socket.into()),
        None => bind_tcp(bind),
    }
}

fn open_admin(
    admin: &AdminBind,
    (inherited, activated): (&mut Legacy, &mut Activated),
    legacy: &mut Legacy,
) -> Result<Option<admin::Socket>, String> {
    let opened = match admin {
        AdminBind::Off => return Ok(None),
        AdminBind::Tcp(bind) => {
            let place = Place::AdminTcp(*bind);
            let socket = tcp(*bind, inherited.take(&place).or_else(|| activated.take_tcp(*bind)));
            socket.and_then(|socket| legacy.keep(place, &socket).map(|()| admin::Socket::Tcp(socket)))
        }
        AdminBind::Unix(path) => {
            let place = Place::AdminUnix(path.clone());
            let socket = unix(path, inherited.take(&place).or_else(|| activated.take_unix(path)));
            socket.and_then(|socket| {
                legacy.keep(place, &socket).map(|()| admin::Socket::Unix(socket, path.clone()))
            })
        }
    };
    match opened {
        Ok(socket) => Ok(Some(socket)),
        // The default place exists where tollgate is installed; nobody asked for it elsewhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_default(admin) => {
            log::warn!("no admin listener: {error}");
            Ok(None)
        }
        Err(error) => Err(format!("admin listener: {error}")),
    }
}

fn is_default(admin: &AdminBind) -> bool {
    matches!(admin, AdminBind::Unix(path) if path.as_os_str() == DEFAULT_ADMIN)
}

fn unix(path: &Path, inherited: Option<OwnedFd>) -> io::Result<UnixListener> {
    match inherited {
        Some(socket) => {
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
        None => bind_unix(path),
    }
}
