//! Whose turn it is: a task that writes for many others runs after them, and one that begins many lets others come between.

use std::task::{Context, Poll};

/// How much may be begun in one turn. What was begun stands in line before everybody who comes later: a hundred requests at once
/// would keep others waiting for milliseconds.
const MOST: u32 = 2;

/// Puts a task that was woken behind all that are ready. Whoever of them has something to send over its connection adds that
/// meanwhile, and all of it goes out at once: one system call instead of one for each request.
#[derive(Debug, Default)]
pub struct Turn {
    /// Whether the task has stood in line since it was woken.
    has_come: bool,
    /// What was begun in this turn.
    begun: u32,
}

impl Turn {
    /// Ready when it is the task's turn, which lasts until [`Turn::end`].
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.has_come {
            return Poll::Ready(());
        }
        (self.has_come, self.begun) = (true, 0);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The task has begun something for others to do. After a few of those it stands in line again.
    pub fn begin(&mut self) {
        self.begun += 1;
        if self.begun == MOST {
            self.end();
        }
    }

    /// The task has nothing to do until it is woken again.
    pub fn end(&mut self) {
        self.has_come = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::task::{Waker, ready};
    use tokio::task::{LocalSet, spawn_local};

    #[tokio::test]
    async fn others_come_first() {
        thread_local! {
            static ORDER: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
        }
        let note = |who| ORDER.with_borrow_mut(|order| order.push(who));
        let tasks = LocalSet::new();
        tasks.spawn_local(async move {
            let mut turn = Turn::default();
            let polite = spawn_local(poll_fn(move |cx| {
                ready!(turn.poll(cx));
                note("polite");
                turn.end();
                Poll::Ready(())
            }));
            let other = spawn_local(async move { note("other") });
            polite.await.unwrap();
            other.await.unwrap();
        });
        tasks.await;
        ORDER.with_borrow(|order| assert_eq!(*order, ["other", "polite"]));
    }

    #[test]
    fn who_begins_much_stands_in_line_again() {
        let (mut turn, cx) = (Turn::default(), Context::from_waker(Waker::noop()));
        for _ in 0..3 {
            assert!(turn.poll(&cx).is_pending());
            for _ in 0..MOST {
                assert!(turn.poll(&cx).is_ready());
                turn.begin();
            }
        }
    }
}
