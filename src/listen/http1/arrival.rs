//! The wait for a request: for how long nothing may be asked, and for how long its head may take to come.

use super::Session;
use crate::listen::Limits;
use crate::listen::connection::LAST_CHANCE;
use crate::listen::framing::Flaw;
use std::future::poll_fn;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Most empty lines in front of a request; one is what old clients send behind a body (RFC 9112 section 2.2).
const MOST_EMPTY_LINES: u32 = 4;

/// How far a head has come.
struct Arrival<'a> {
    limits: &'a Limits,
    /// Bytes that were looked at.
    seen: usize,
    /// When it must be whole, once it has begun.
    deadline: Option<Instant>,
    /// Empty lines in front of it.
    empty_lines: u32,
    /// Whether the process leaves.
    leaving: bool,
}

impl Session {
    /// Reads until there is a whole head, at most `limits.header_timeout` from its first byte on; `None` when none begins: the
    /// client has left, or has asked nothing for `limits.keepalive`, or for a last second once `stopping` is true.
    ///
    /// # Errors
    /// What is wrong with it; nobody reads further then.
    pub async fn await_head(
        &mut self,
        limits: &Limits,
        stopping: &mut watch::Receiver<bool>,
    ) -> Option<Result<(), Flaw>> {
        let leaving = *stopping.borrow();
        let mut arrival = Arrival { limits, seen: 0, deadline: None, empty_lines: 0, leaving };
        let mut alarm = self.take_alarm();
        loop {
            match arrival.look(self) {
                Ok(true) => {
                    self.put_alarm(alarm);
                    return Some(Ok(()));
                }
                Ok(false) => {}
                Err(flaw) => return Some(Err(flaw)),
            }
            let idle = arrival.seen == 0;
            let more = alarm.within(arrival.patience(), poll_fn(|cx| self.poll_fill(cx)));
            let more = tokio::select! {
                biased;
                more = more => more,
                _ = stopping.changed(), if idle && !arrival.leaving => {
                    arrival.leaving = true;
                    continue;
                }
            };
            match more {
                Ok(Ok(1..)) => {}
                Err(_) if !idle => return Some(Err(Flaw::Slow)),
                _ => return None,
            }
        }
    }
}

impl Arrival<'_> {
    /// Looks at what has come; whether it is a whole head.
    fn look(&mut self, session: &mut Session) -> Result<bool, Flaw> {
        // Of an empty line, one half may have come before the other.
        while self.seen <= 1 && session.skip_empty_line() {
            (self.seen, self.deadline) = (0, None);
            self.empty_lines += 1;
        }
        if self.empty_lines > MOST_EMPTY_LINES {
            return Err(Flaw::EmptyLines);
        }
        let is_whole = session.begin(self.seen, self.limits)?;
        self.seen = session.ahead().len();
        Ok(is_whole)
    }

    /// How long to wait for more.
    fn patience(&mut self) -> Duration {
        match (self.seen, self.deadline) {
            (0, _) if self.leaving => LAST_CHANCE,
            (0, _) => self.limits.keepalive,
            (_, Some(deadline)) => deadline.saturating_duration_since(Instant::now()),
            (_, None) => {
                self.deadline = Some(Instant::now() + self.limits.header_time);
                self.limits.header_time
            }
        }
    }
}
