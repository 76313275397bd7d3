//! Panics: where they happened, how often, and whom they cost what they were doing.
//!
//! A message that was put together while running may quote what a request carried or a key, so it is told to nobody; the place
//! in the source and a message that was written there say enough.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static GUARD: Cell<Guard> = const { Cell::new(Guard::Nobody) };
    /// Where the last panic was that somebody tells of.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Who waits for what runs, should it panic.
#[derive(Clone, Copy)]
enum Guard {
    Nobody,
    /// Somebody who tells of it.
    Teller,
    /// Somebody to whom it is an answer like any other.
    Knower,
}

/// How many panics there were since the process began.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Has every panic of the process told and counted here, instead of printed with its message.
pub fn watch() {
    set_hook(Box::new(note));
}

/// Notes a panic that is under way.
pub fn note(info: &PanicHookInfo<'_>) {
    let guard = GUARD.get();
    if !matches!(guard, Guard::Knower) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    match guard {
        Guard::Nobody => log::error!("panic at {}", place(info)),
        Guard::Teller => PLACE.set(Some(place(info))),
        Guard::Knower => {}
    }
}

fn place(info: &PanicHookInfo<'_>) -> String {
    let mut place = info.location().map_or_else(unknown, ToString::to_string);
    if let Some(written) = info.payload().downcast_ref::<&'static str>() {
        place.push_str(&format!(" ({written})"));
    }
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        place.push_str(&format!("\n{trace}"));
    }
    place
}

/// Some work has panicked; says where.
#[derive(Debug)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic at {}", self.0)
    }
}

/// Runs work whose panic ends nothing but itself: what it held is dropped, and whoever waits for it is told. What it has
/// borrowed may be in any state then.
///
/// # Errors
/// It has panicked.
pub async fn guarded<T>(mut work: Pin<&mut impl Future<Output = T>>) -> Result<T, Panicked> {
    poll_fn(|cx| match catch(Guard::Teller, || work.as_mut().poll(cx)) {
        Some(polled) => polled.map(Ok),
        None => Poll::Ready(Err(Panicked(PLACE.take().unwrap_or_else(unknown)))),
    })
    .await
}

/// Calls what panics where it should give an error; `None` if it does.
pub fn expected<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch(Guard::Knower, call)
}

fn catch<T>(guard: Guard, call: impl FnOnce() -> T) -> Option<T> {
    let before = GUARD.replace(guard);
    let called = catch_unwind(AssertUnwindSafe(call));
    GUARD.set(before);
    called.ok()
}

fn unknown() -> String {
    "an unknown place".to_owned()
}

/// Notes the panics of a test process, which are printed as well: so tests tell why they fail.
#[cfg(test)]
pub fn watch_as_well() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        set_hook(Box::new(move |info| {
            note(info);
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test]
    async fn a_panic_is_told_by_its_place_and_not_by_what_it_was_about() {
        watch_as_well();
        let count_before = count();
        let secret = std::hint::black_box("hunter2");
        let work = async {
            tokio::task::yield_now().await;
            assert!(secret.is_empty(), "{secret}");
        };
        let panicked = guarded(pin!(work)).await.unwrap_err().to_string();
        assert!(
            panicked.starts_with("panic at src/observe/panics.rs:") && !panicked.contains(secret),
            "{panicked}"
        );
        let written = async { panic!("as written") };
        let panicked = guarded(pin!(written)).await.map(|(): ()| ()).unwrap_err().to_string();
        assert!(panicked.contains("(as written)"), "{panicked}");
        assert!(count() >= count_before + 2 && matches!(GUARD.get(), Guard::Nobody));
        assert_eq!(guarded(pin!(async { 7 })).await.unwrap(), 7);
    }
}
