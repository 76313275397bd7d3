//! How long a client may take nothing of what is sent to it.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Gives up when sending makes no progress for a time. Costs nothing while it does.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// `None` to wait for ever.
    limit: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn of(limit: Duration) -> Patience {
        Patience { limit: Some(limit), waiting: None }
    }

    /// Waits so long from now on.
    pub(super) fn set(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    /// Passes on what became of sending, or that it takes too long.
    pub(super) fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        sent: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let (Poll::Pending, Some(limit)) = (&sent, self.limit) else {
            self.waiting = None;
            return sent;
        };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}
