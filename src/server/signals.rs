//! Signals: TERM and QUIT stop gracefully, INT at once, USR1 reopens the access log.

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

    /// Waits for the next signal that ends the process; the others are dealt with on the way.
    pub(super) async fn next(&mut self, log: Option<&AccessLog>) -> End {
        loop {
            tokio::select! {
                _ = self.term.recv() => return End::Graceful,
                _ = self.quit.recv() => return End::Graceful,
                _ = self.int.recv() => return End::Fast,
                _ = self.usr1.recv() => {
                    if let Some(log) = log {
                        log.reopen();
                    }
                }
                _ = self.hup.recv() => log::warn!("HUP ignored: the configuration cannot be reloaded yet; restart instead"),
                _ = self.usr2.recv() => log::warn!("USR2 ignored: the binary cannot be upgraded yet; restart instead"),
            }
        }
    }
}
