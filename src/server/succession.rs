//! The process that runs lets another take its place: checks the binary, starts it, and gives it the listening sockets at
//! once and the counters when it is ready. Until the successor says that it serves, nothing is given up: whatever goes wrong
//! before, it is killed and this process goes on.

use super::sockets::Legacy;
use super::systemd::for_successor;
use super::wire::{PROTOCOL, Welcome, Wire, Word};
use crate::cache::Store;
use crate::listen::tls::tickets::Tickets;
use crate::snapshot::Snapshot;
use crate::store::handover::export;
use crate::store::keeper::Keeper;
use crate::store::memory::{Memory, now};
use crate::store::seed::Seed;
use arc_swap::ArcSwap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a binary may take to say which version it is.
const VERSION_TIME: Duration = Duration::from_secs(5);
/// How long a ready successor may take from being given the counters to serving: nobody accepts new connections meanwhile,
/// they wait in the kernel's queue.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// What a successor is made from.
pub(super) struct Heritage {
    /// The binary this process was started from, by its name: what stands there now may be newer.
    pub binary: PathBuf,
    /// What it is started with.
    pub arguments: Vec<std::ffi::OsString>,
    /// The listening sockets.
    pub sockets: Legacy,
    /// Counters of limits and quotas.
    pub memory: Arc<Memory>,
    /// Keys of TLS session tickets: clients resume their sessions with the successor.
    pub tickets: Arc<Tickets>,
    /// The configuration that runs, for the shares of its splits.
    pub current: Arc<ArcSwap<Snapshot>>,
    /// The file of quotas, which one process at a time may write.
    pub quotas: Option<Arc<Keeper>>,
    /// Stored answers, whose folder one process at a time uses.
    pub cache: Arc<Store>,
}

/// A process that serves in our place.
pub(super) struct Successor {
    pub pid: u32,
    pub version: String,
    wire: Wire,
}

/// Opens and closes the doors: while the successor takes over, nobody is let in here.
pub(super) trait Doorkeeper {
    fn close(&self);
    fn open(&self);
}

impl Heritage {
    /// Lets another process take over.
    ///
    /// # Errors
    /// Why none did. Nothing has changed then.
    pub(super) async fn pass_on(
        &self,
        binary: Option<PathBuf>,
        within: Duration,
        doors: &impl Doorkeeper,
    ) -> Result<Successor, String> {
        let result = self.try_to(binary, within, doors).await;
        if result.is_err() {
            self.take_back().await;
        }
        result
    }

    async fn try_to(
        &self,
        binary: Option<PathBuf>,
        within: Duration,
        doors: &impl Doorkeeper,
    ) -> Result<Successor, String> {
        let binary = binary.unwrap_or_else(|| self.binary.clone());
        let version = version(&binary).await?;
        log::info!("upgrade: starting {} ({version})", binary.display());
        let (mut candidate, wire) = self.start(&binary)?;
        match self.introduce(wire, within).await {
            Ok((wire, ready)) => match self.hand_over(wire, doors).await {
                Ok(wire) => Ok(Successor { pid: ready.0, version: ready.1, wire: candidate.survive(wire) }),
                Err(why) => Err(candidate.reject(&why).await),
            },
            Err(why) => Err(candidate.reject(&why).await),
        }
    }

    fn start(&self, binary: &Path) -> Result<(Candidate, Wire), String> {
        let (wire, theirs) = Wire::pair().map_err(|error| format!("no sockets to talk over: {error}"))?;
        let mut command = Command::new(binary);
        command.args(&self.arguments).arg("--take-over").stdin(Stdio::from(theirs));
        for_successor(command.as_std_mut());
        let child =
            command.spawn().map_err(|error| format!("{} cannot be started: {error}", binary.display()))?;
        Ok((Candidate(Some(child)), wire))
    }

    /// Gives the sockets and waits until the successor could serve.
    async fn introduce(&self, mut wire: Wire, within: Duration) -> Result<(Wire, (u32, String)), String> {
        let welcome = Word::Welcome(Welcome {
            protocol: PROTOCOL,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: Seed::current().0,
            sockets: self.sockets.0.iter().map(|(place, _)| place.clone()).collect(),
        });
        let sockets = self.sockets.0.iter().map(|(_, socket)| socket.as_fd().try_clone_to_owned());
        let sockets: Vec<_> = sockets.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        blocking(move || {
            wire.say(&welcome, within)?;
            wire.send_sockets(&sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>(), within)?;
            drop(sockets);
            wire.hear(within).map(|word| (wire, word))
        })
        .await
        .map_err(|why| format!("it does not get ready: {why}"))
        .and_then(|(wire, word)| match word {
            Word::Ready { pid, version, .. } => Ok((wire, (pid, version))),
            Word::Failed(why) => Err(why),
            _ => Err("it says something else than that it is ready".to_owned()),
        })
    }

    /// Gives the counters, the keys of tickets and the shares of splits. Behind this the successor serves, or this process does again.
    async fn hand_over(&self, mut wire: Wire, doors: &impl Doorkeeper) -> Result<Wire, String> {
        doors.close();
        let (memory, tickets, quotas) = (self.memory.clone(), self.tickets.clone(), self.quotas.clone());
        let snapshot = self.current.load_full();
        let cache = self.cache.clone();
        let result = blocking(move || {
            cache.release_disk();
            if let Some(Err(error)) = quotas.map(|quotas| quotas.release()) {
                log::warn!("quotas could not be written before the upgrade: {error}");
            }
            wire.send_state(&export(&memory, now()), TAKE_OVER)?;
            wire.send_state(&tickets.export(), TAKE_OVER)?;
            let splits: Vec<_> = snapshot.splits().map(|(route, shares)| shares.status(route)).collect();
            wire.send_state(&serde_json::to_vec(&splits)?, TAKE_OVER)?;
            wire.hear(TAKE_OVER).map(|word| (wire, word))
        });
        let why = match result.await {
            Ok((wire, Word::Serving)) => return Ok(wire),
            Ok((_, Word::Failed(why))) => why,
            Ok(_) => "it says something else than that it serves".to_owned(),
            Err(why) => format!("it does not take over: {why}"),
        };
        doors.open();
        Err(why)
    }

    /// What this process had given away for the successor that did not come.
    async fn take_back(&self) {
        let (quotas, cache) = (self.quotas.clone(), self.cache.clone());
        let taken = blocking(move || {
            cache.take_back_disk();
            quotas.map_or(Ok(()), |quotas| quotas.take_back()).map_err(std::io::Error::other)
        })
        .await;
        if let Err(why) = taken {
            log::error!("quotas are kept in memory only: {why}");
        }
    }
}

impl Successor {
    /// Tells how many connections are left to finish here. A successor that is gone hears nothing.
    pub(super) fn tell(&mut self, connections: usize) {
        if let Err(error) = self.wire.say(&Word::Draining { connections }, Duration::from_millis(100)) {
            log::debug!("the successor does not listen: {error}");
        }
    }
}

/// A process that wants to succeed; killed when it does not.
struct Candidate(Option<Child>);

impl Candidate {
    /// Lets it live.
    fn survive(&mut self, wire: Wire) -> Wire {
        self.0 = None;
        wire
    }

    /// Ends it. Gives `why`, and how it ended if it did so on its own.
    async fn reject(&mut self, why: &str) -> String {
        let Some(mut child) = self.0.take() else { return why.to_owned() };
        // One that broke off is about to end: how says more than that nothing is heard of it.
        let ended = timeout(Duration::from_millis(500), child.wait()).await;
        if let Err(error) = child.start_kill() {
            log::debug!("ending the process that did not succeed: {error}");
        }
        let own_end = ended.ok().and_then(Result::ok);
        drop(timeout(Duration::from_secs(5), child.wait()).await);
        own_end.map_or_else(|| why.to_owned(), |status| format!("{why} ({})", how(status)))
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.start_kill());
        }
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("it ended with exit code {code}"),
        None => format!("it ended: {status}"),
    }
}

/// The version of a binary, which thereby shows that it is a tollgate and runs here.
async fn version(binary: &Path) -> Result<String, String> {
    let shown = binary.display();
    let asked =
        Command::new(binary).args(["version", "--json"]).stdin(Stdio::null()).kill_on_drop(true).output();
    let answer =
        timeout(VERSION_TIME, asked).await.map_err(|_| format!("{shown} does not say its version"))?;
    let answer = answer.map_err(|error| format!("{shown} cannot be started: {error}"))?;
    let told: Option<serde_json::Value> = serde_json::from_slice(&answer.stdout).ok();
    let told = told.filter(|_| answer.status.success());
    let version = told.as_ref().and_then(|told| told.get("version")).and_then(serde_json::Value::as_str);
    version.map(str::to_owned).ok_or_else(|| format!("{shown} is no tollgate ({})", how(answer.status)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
