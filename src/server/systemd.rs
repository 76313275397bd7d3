//! What is said to systemd and taken from it: readiness, state, watchdog (sd_notify(3)) and sockets (sd_listen_fds(3)).
//!
//! Without systemd nothing of this happens, and nothing here ever fails the process: a message that cannot be sent is a line
//! at debug level.
//!
//! ## Over an upgrade
//!
//! The successor is started by the running process and inherits its environment, so `$NOTIFY_SOCKET` reaches it as it is. What
//! was meant for one process id only must not: [`for_successor`] takes it out. With `NotifyAccess=main` systemd listens to the
//! main process alone; until the predecessor has sent [`Notify::main_pid`] that is the predecessor, from then on the successor.
//! So the successor says nothing before it is told that it has taken over, and a [`Notify`] that has named another main process
//! is silent from there on.

use nix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a message may wait for a service manager that does not read.
const PATIENCE: Duration = Duration::from_millis(500);

/// Variables that are meant for one process and not for its successor.
const FOR_ONE_PROCESS: [&str; 4] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The service manager's ear; every copy speaks for the same process.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    to: Option<UnixAddr>,
    watchdog: Option<Duration>,
    /// Whether another process is the main one by now.
    handed_over: Arc<AtomicBool>,
}

impl Notify {
    /// As the environment says; nothing is removed from it, because a successor needs it.
    ///
    /// Belongs at the very start of a run.
    pub fn from_env() -> Notify {
        Notify::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Notify {
        Notify {
            to: variable("NOTIFY_SOCKET").and_then(|socket| address(&socket)),
            watchdog: watchdog(&variable),
            handed_over: Arc::default(),
        }
    }

    /// All listeners accept.
    ///
    /// Belongs after the doors are open, and after a reload that [`Notify::reloading`] announced, whatever came of it. A
    /// successor does not say it: the service is ready already.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload begins; [`Notify::ready`] must follow. With `Type=notify-reload` (systemd 253) `systemctl reload` waits for both,
    /// with `Type=notify` it waits for `ExecReload=` and this only shows.
    ///
    /// Belongs right after HUP or the admin's word, before the configuration is read.
    pub fn reloading(&self) {
        match monotonic_micros() {
            // The time tells systemd which of its signals this answers.
            Ok(now) => self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}")),
            Err(error) => log::debug!("the clock does not tell the time: {error}"),
        }
    }

    /// The process is on its way out.
    ///
    /// Belongs where draining begins after TERM, QUIT or INT; not after an upgrade, where the service goes on.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`, such as the start-up line or why a reload failed. Line breaks become spaces.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", one_line(line)));
    }

    /// Names the process that is the service from now on, and what `systemctl status` says of it; this one says nothing more. A
    /// reload that this process announced ends with it. The watchdog is fed, too, since the successor begins to do so some time
    /// later: upgrades in quick succession would starve it.
    ///
    /// Belongs in the upgrade, after the successor has proven that it serves and before this process drains.
    pub fn main_pid(&self, pid: u32, line: &str) {
        self.send(&format!("READY=1\nMAINPID={pid}\nWATCHDOG=1\nSTATUS={}", one_line(line)));
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Whether another process is the main one by now.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// The request path works. [`super::watchdog::Watchdog`] sends this.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often [`Notify::watchdog`] is due: half of `WatchdogSec=`; `None` when nobody waits for it.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.to.is_some())
    }

    /// Starting or stopping will take `more` from now on, whatever `TimeoutStartSec=` or `TimeoutStopSec=` say.
    ///
    /// Belongs where draining begins, with the drain's deadline and a few seconds for the last words.
    pub fn extend(&self, more: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", more.as_micros()));
    }

    fn send(&self, message: &str) {
        let Some(to) = self.to.as_ref().filter(|_| !self.is_handed_over()) else { return };
        if let Err(error) = send(to, message) {
            log::debug!("systemd was not told {message:?}: {error}");
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn send(to: &UnixAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), to).map(drop)
}

/// `$NOTIFY_SOCKET`: a path, or a name in the abstract namespace when it begins with `@`.
fn address(socket: &OsString) -> Option<UnixAddr> {
    let made = match socket.as_bytes() {
        [b'@', name @ ..] => UnixAddr::from_abstract_name(name),
        [b'/', ..] => UnixAddr::from_pathname(socket),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    made.inspect_err(|error| log::debug!("NOTIFY_SOCKET {socket:?} is of no use: {error}")).ok()
}

/// Half of `$WATCHDOG_USEC`, if the process in `$WATCHDOG_PID` is this one or none is named (sd_watchdog_enabled(3)).
fn watchdog(variable: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    let ours = variable("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID").is_some_and(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

fn monotonic_micros() -> nix::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1000)
}

/// Takes out of a successor's environment what is meant for this process only. Without `$WATCHDOG_PID` the successor knows that
/// the watchdog is for it: nobody else can be the main process once it is.
///
/// Belongs where the upgrade makes the command that starts the new binary.
pub fn for_successor(command: &mut Command) {
    for name in FOR_ONE_PROCESS {
        command.env_remove(name);
    }
}

/// Listening sockets that systemd opened for us and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Activated(Vec<(String, Inherited)>);

/// One of them.
#[derive(Debug)]
enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Activated {
    /// The sockets of `tollgate.socket`. What is neither a TCP nor a Unix listener is told and left out.
    ///
    /// Belongs before anything is bound, on the main thread before there is another: the variables are removed from the
    /// environment, so that no child takes descriptors for its own.
    ///
    /// The descriptors become owned sockets in the crate `listenfd`, since that takes `unsafe`. Getting copies with
    /// pidfd_getfd(2) would not, but would leave the originals open for ever, and is not in systemd's `@system-service`.
    pub fn from_env() -> Activated {
        // Read first: the crate knows nothing of names.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut given = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default();
            match inherited(&mut given, index) {
                Ok(socket) => sockets.extend(socket.map(|socket| (name, socket))),
                Err(error) => log::warn!("socket `{name}` of systemd cannot be used: {error}"),
            }
        }
        Activated(sockets)
    }

    /// Takes the TCP socket that listens on exactly this address; still to be passed to
    /// [`adopt_tcp`](crate::listen::bind::adopt_tcp).
    pub fn take_tcp(&mut self, address: SocketAddr) -> Option<OwnedFd> {
        let here = |socket: &Inherited| matches!(socket, Inherited::Tcp(socket) if socket.local_addr().is_ok_and(|local| local == address));
        self.take(here)
    }

    /// Takes the Unix socket that listens at this path; still to be made not to block.
    pub fn take_unix(&mut self, path: &Path) -> Option<OwnedFd> {
        let here = |socket: &Inherited| {
            matches!(socket, Inherited::Unix(socket)
                if socket.local_addr().is_ok_and(|local| local.as_pathname() == Some(path)))
        };
        self.take(here)
    }

    fn take(&mut self, wanted: impl Fn(&Inherited) -> bool) -> Option<OwnedFd> {
        let place = self.0.iter().position(|(_, socket)| wanted(socket))?;
        Some(match self.0.swap_remove(place).1 {
            Inherited::Tcp(socket) => socket.into(),
            Inherited::Unix(socket) => socket.into(),
        })
    }

    /// Closes those that nothing in the configuration listens on, and says so.
    ///
    /// Belongs after the last listener is bound.
    pub fn close_unused(self) {
        for (name, socket) in self.0 {
            log::warn!(
                "no listener of the configuration has the address of systemd's socket `{name}`: {}",
                socket.address()
            );
        }
    }
}

impl Inherited {
    fn address(&self) -> String {
        match self {
            Inherited::Tcp(socket) => {
                socket.local_addr().map_or_else(|error| error.to_string(), |local| local.to_string())
            }
            Inherited::Unix(socket) => {
                socket.local_addr().map_or_else(|error| error.to_string(), |local| format!("{local:?}"))
            }
        }
    }
}

fn inherited(given: &mut listenfd::ListenFd, index: usize) -> io::Result<Option<Inherited>> {
    match given.take_unix_listener(index) {
        Ok(taken) => Ok(taken.map(Inherited::Unix)),
        Err(_) => Ok(given.take_tcp_listener(index)?.map(Inherited::Tcp)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn notify(variables: &[(&str, &str)]) -> Notify {
        let variables: HashMap<&str, OsString> =
            variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        Notify::from_variables(|name| variables.get(name).cloned())
    }

    fn heard(ear: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        ear.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let length = ear.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn hears_nothing(ear: &UnixDatagram) -> bool {
        ear.set_nonblocking(true).unwrap();
        let nothing = ear.recv(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        ear.set_nonblocking(false).unwrap();
        nothing
    }

    #[test]
    fn each_message_is_one_datagram_as_sd_notify_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let notify = notify(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        notify.ready();
        assert_eq!(heard(&ear), "READY=1");
        notify.status("two\nlines\r");
        assert_eq!(heard(&ear), "STATUS=two lines ");
        notify.watchdog();
        assert_eq!(heard(&ear), "WATCHDOG=1");
        notify.extend(Duration::from_millis(1500));
        assert_eq!(heard(&ear), "EXTEND_TIMEOUT_USEC=1500000");
        notify.stopping();
        assert_eq!(heard(&ear), "STOPPING=1");
    }

    #[test]
    fn a_reload_tells_the_time_of_the_monotonic_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let before = monotonic_micros().unwrap();
        notify(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).reloading();
        let said = heard(&ear);
        let told: i128 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic_micros().unwrap()).contains(&told), "{told}");
    }

    #[test]
    fn names_in_the_abstract_namespace_are_reached() {
        let name = format!("tollgate-test-{}", uuid::Uuid::now_v7());
        let ear = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify(&[("NOTIFY_SOCKET", &format!("@{name}"))]).ready();
        assert_eq!(heard(&ear), "READY=1");
    }

    #[test]
    fn who_has_named_another_main_process_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let notify = notify(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        let copy = notify.clone();
        notify.main_pid(4711, "another");
        assert_eq!(heard(&ear), "READY=1\nMAINPID=4711\nWATCHDOG=1\nSTATUS=another");
        notify.stopping();
        copy.watchdog();
        assert!(hears_nothing(&ear));
    }

    #[test]
    fn without_systemd_or_with_a_broken_one_nothing_happens() {
        let long = format!("/{}", "x".repeat(200));
        for socket in ["", "relative", "vsock:2:1", "/nonexistent/notify", &long, "@"] {
            let notify = notify(&[("NOTIFY_SOCKET", socket)]);
            notify.ready();
            notify.main_pid(1, "");
        }
        notify(&[]).ready();
        assert_eq!(notify(&[("WATCHDOG_USEC", "1000")]).watchdog_every(), None, "nobody to tell");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_whom_it_is_meant_for() {
        let own = std::process::id().to_string();
        let every = |variables: &[(&str, &str)]| {
            notify(&[&[("NOTIFY_SOCKET", "/run/systemd/notify")], variables].concat()).watchdog_every()
        };
        let half = Some(Duration::from_secs(15));
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", &own)]), half);
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000")]), half, "a successor");
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "1")]), None);
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "one")]), None);
        assert_eq!(every(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(every(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(every(&[]), None);
    }

    #[test]
    fn a_successor_gets_the_ear_and_not_what_names_its_predecessor() {
        let mut command = Command::new("env");
        for name in FOR_ONE_PROCESS.iter().chain(&["NOTIFY_SOCKET", "WATCHDOG_USEC"]) {
            command.env(name, "1");
        }
        for_successor(&mut command);
        let kept: Vec<_> = command.get_envs().filter_map(|(name, value)| value.and(name.to_str())).collect();
        assert_eq!(kept, ["NOTIFY_SOCKET", "WATCHDOG_USEC"]);
    }

    #[test]
    fn sockets_are_taken_by_the_address_they_listen_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let mut sockets =
            Activated(vec![("admin".into(), Inherited::Unix(unix)), ("web".into(), Inherited::Tcp(tcp))]);
        assert!(sockets.take_tcp(SocketAddr::new([127, 0, 0, 2].into(), address.port())).is_none());
        assert!(sockets.take_unix(Path::new("/nonexistent")).is_none());
        let taken = TcpListener::from(sockets.take_tcp(address).unwrap());
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(sockets.take_tcp(address).is_none(), "taken once");
        let taken = UnixListener::from(sockets.take_unix(&path).unwrap());
        assert_eq!(taken.local_addr().unwrap().as_pathname(), Some(&*path));
        assert!(sockets.0.is_empty());
    }
}
