//! The process before this one, which still serves while this one gets ready to take its place.

use super::sockets::Legacy;
use super::wire::{PROTOCOL, Welcome, Wire, Word};
use crate::actions::SplitStatus;
use crate::reload::Waning;
use crate::store::seed::Seed;
use std::io;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long it may take to say what it has to.
const PATIENCE: Duration = Duration::from_secs(10);
/// It tells how it drains every second; so much silence means that it is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// What a process leaves to its successor.
pub(super) struct Estate {
    /// Counters of limits and quotas.
    pub counters: Vec<u8>,
    /// Keys of session tickets.
    pub tickets: Zeroizing<Vec<u8>>,
    /// Shares of splits.
    pub splits: Vec<SplitStatus>,
}

/// The other end of a take-over.
pub struct Predecessor {
    wire: Wire,
    pid: u32,
    sockets: Legacy,
}

impl Predecessor {
    /// Meets it on standard input. Must come before anything is counted.
    ///
    /// # Errors
    /// There is none, or it speaks another protocol.
    pub fn meet() -> Result<Predecessor, String> {
        let mut wire =
            Wire::from_stdin().map_err(|_| "--take-over is only for `tollgate upgrade`".to_owned())?;
        let failed = |error: io::Error| format!("the process before is not understood: {error}");
        let Word::Welcome(welcome) = wire.hear(PATIENCE).map_err(failed)? else {
            return Err("the process before does not welcome this one".to_owned());
        };
        let Welcome { protocol, pid, version, seed, sockets } = welcome;
        if protocol != PROTOCOL {
            let why =
                format!("tollgate {version} and {} cannot follow each other", env!("CARGO_PKG_VERSION"));
            drop(wire.say(&Word::Failed(why.clone()), PATIENCE));
            return Err(why);
        }
        if !Seed(seed).plant() {
            return Err("something was counted too early".to_owned());
        }
        let handles = wire.receive_sockets(sockets.len(), PATIENCE).map_err(failed)?;
        Ok(Predecessor { wire, pid, sockets: Legacy(sockets.into_iter().zip(handles).collect()) })
    }

    /// Says why this process cannot take over.
    pub fn refuse(mut self, why: &str) {
        drop(self.wire.say(&Word::Failed(why.to_owned()), PATIENCE));
    }

    /// Another handle, to [refuse](Self::refuse) with whatever becomes of this one.
    pub(super) fn second(&self) -> Option<Predecessor> {
        Some(Predecessor { wire: self.wire.try_clone().ok()?, pid: self.pid, sockets: Legacy::default() })
    }

    pub(super) fn take_sockets(&mut self) -> Legacy {
        std::mem::take(&mut self.sockets)
    }

    /// Says that this process could serve, and waits for what the other hands over. Blocks.
    ///
    /// # Errors
    /// The process before has changed its mind or is gone.
    pub(super) fn ready(&mut self, config: &str) -> Result<Estate, String> {
        let ready = Word::Ready {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: config.to_owned(),
        };
        let mut take_over = || {
            self.wire.say(&ready, PATIENCE)?;
            Ok(Estate {
                counters: self.wire.receive_state(PATIENCE)?,
                tickets: Zeroizing::new(self.wire.receive_state(PATIENCE)?),
                splits: serde_json::from_slice(&self.wire.receive_state(PATIENCE)?).unwrap_or_default(),
            })
        };
        take_over().map_err(|error: io::Error| format!("the process before does not hand over: {error}"))
    }

    /// Says that this process serves. What the other tells from now on is how it drains. Blocks.
    pub(super) fn serving(mut self) -> Result<Waning, String> {
        self.wire
            .say(&Word::Serving, PATIENCE)
            .map_err(|error| format!("the process before is gone: {error}"))?;
        let (waning, left) = Waning::new(self.pid);
        let mut wire = self.wire;
        let listen = move || {
            while let Ok(Word::Draining { connections }) = wire.hear(SILENCE) {
                left.set(Some(connections));
            }
            left.set(None);
        };
        // A thread of its own: it waits for as long as the other drains.
        let listening = std::thread::Builder::new().name("predecessor".to_owned()).spawn(listen);
        listening.map_err(|error| format!("threads cannot be started: {error}"))?;
        Ok(waning)
    }
}
