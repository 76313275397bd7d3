//! Signals: TERM and QUIT stop gracefully, INT at once, HUP reloads, USR1 reopens the access log, USR2 upgrades.

use crate::observe::access_log::AccessLog;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Let requests finish.
    Graceful,
    /// At once.
    Fast,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// TERM, QUIT, INT.
    End(End),
    /// USR1: the access log was moved away.
    Reopen,
    /// HUP.
    Reload,
    /// USR2.
    Upgrade,
}

/// All signals that mean something here. From its making on, none of them kills the process.
pub(super) struct Signals {
    term: Signal,
    quit: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    /// Begins to receive them.
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal that asks for something.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::End(End::Graceful),
            _ = self.quit.recv() => Told::End(End::Graceful),
            _ = self.int.recv() => Told::End(End::Fast),
            _ = self.usr1.recv() => Told::Reopen,
            _ = self.hup.recv() => Told::Reload,
            _ = self.usr2.recv() => Told::Upgrade,
        }
    }

    /// Waits for the next signal that ends the process; the log is reopened on the way.
    pub(super) async fn end(&mut self, log: Option<&AccessLog>) -> End {
        loop {
            match (self.next().await, log) {
                (Told::End(end), _) => return end,
                (Told::Reopen, Some(log)) => log.reopen(),
                (Told::Reopen, None) => {}
                (Told::Reload | Told::Upgrade, _) => log::warn!("ignored: the process is not serving"),
            }
        }
    }
}
