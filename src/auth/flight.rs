//! Answers of somebody else: asked for once however many requests wait, remembered for a while, bounded in number.

use super::generations::Generations;
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Answers one [`Flights`] remembers.
pub const REMEMBERED: usize = 10_000;
/// Questions under way at once. More are refused: whoever sends ever new tokens must not make us ask without end.
const UNDER_WAY: usize = 1_024;

/// SHA-256 of what was asked: a credential itself is never kept.
pub type Digest = [u8; 32];

/// The digest of several parts, each with its length, so that no two lists of parts run together to the same.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Questions under way and answers remembered, by digest.
pub struct Flights<V> {
    answers: Mutex<Generations<Digest, Entry<V>>>,
    under_way: Mutex<HashMap<Digest, watch::Receiver<Option<V>>, foldhash::quality::RandomState>>,
}

/// Why nobody was asked, or nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Too many questions are under way.
    TooMany,
    /// The one who asked broke down.
    Broken,
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    /// Remembers up to `capacity` answers; of more, those that were not looked at for the longest time go first.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Flights { answers: Mutex::new(Generations::new(capacity)), under_way: Mutex::default() })
    }

    /// The answer, if it is remembered.
    pub fn known(&self, key: &Digest) -> Option<V> {
        let mut answers = self.answers.lock();
        let entry = answers.get(key)?;
        (Instant::now() < entry.until).then(|| entry.value.clone())
    }

    /// Number of answers that are remembered, run out or not.
    pub fn len(&self) -> usize {
        self.answers.lock().len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything that is remembered.
    pub fn forget(&self) {
        self.answers.lock().clear();
    }

    fn remember(&self, key: Digest, value: V, good_for: Duration) {
        if !good_for.is_zero()
            && let Some(until) = Instant::now().checked_add(good_for)
        {
            self.answers.lock().put(key, Entry { value, until });
        }
    }

    /// The answer to `question`, which is asked only if it is neither remembered nor being asked already. It says with
    /// the answer for how long that is good: zero is for those who wait now. It runs to its end even when whoever asked
    /// first goes away, so it must have a time limit of its own.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn ask<F>(self: &Arc<Self>, key: Digest, question: impl FnOnce() -> F) -> Result<V, Failed>
    where
        F: Future<Output = (V, Duration)> + Send + 'static,
    {
        let (mut waiting, tell) = match self.join(key) {
            Joined::Known(answer) => return Ok(answer),
            Joined::Full => return Err(Failed::TooMany),
            Joined::Waiting(waiting) => (waiting, None),
            Joined::First(waiting, tell) => (waiting, Some(tell)),
        };
        // Not under a lock: a runtime that is shutting down drops what is spawned at once, and that takes the lock.
        if let Some(tell) = tell {
            let landing = Landing { flights: Arc::clone(self), key };
            let question = question();
            tokio::spawn(async move {
                let (answer, good_for) = question.await;
                landing.flights.remember(key, answer.clone(), good_for);
                drop(landing);
                tell.send_replace(Some(answer));
            });
        }
        let answer = waiting.wait_for(Option::is_some).await.map_err(|_| Failed::Broken)?;
        answer.clone().ok_or(Failed::Broken)
    }

    fn join(&self, key: Digest) -> Joined<V> {
        let mut under_way = self.under_way.lock();
        // Under this lock, because an answer is remembered before its question leaves the map.
        if let Some(answer) = self.known(&key) {
            return Joined::Known(answer);
        }
        if let Some(waiting) = under_way.get(&key) {
            return Joined::Waiting(waiting.clone());
        }
        if under_way.len() >= UNDER_WAY {
            return Joined::Full;
        }
        let (tell, waiting) = watch::channel(None);
        under_way.insert(key, waiting.clone());
        Joined::First(waiting, tell)
    }
}

/// Where somebody who asks stands.
enum Joined<V> {
    Known(V),
    Full,
    Waiting(watch::Receiver<Option<V>>),
    First(watch::Receiver<Option<V>>, watch::Sender<Option<V>>),
}

/// Takes a question off the list, even when the asking panicked.
struct Landing<V> {
    flights: Arc<Flights<V>>,
    key: Digest,
}

impl<V> Drop for Landing<V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
    }
}

/// An answer that is good for a while.
struct Entry<V> {
    value: V,
    until: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    fn key(number: usize) -> Digest {
        digest([number.to_string().as_bytes()])
    }

    #[test]
    fn digests_keep_parts_apart() {
        assert_ne!(digest([&b"ab"[..], b"c"]), digest([&b"a"[..], b"bc"]));
        assert_ne!(digest([&b"a"[..]]), digest([&b"a"[..], b""]));
        assert_eq!(digest([&b"a"[..], b"b"]), digest([&b"a"[..], b"b"]));
    }

    #[tokio::test]
    async fn many_wait_for_one_and_a_first_who_leaves_takes_nothing_with_him() {
        let flights = Flights::<usize>::new(10);
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let question = || {
            let (asked, gate) = (asked.clone(), gate.clone());
            move || async move {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                let _permit = gate.acquire().await;
                (number, Duration::from_secs(60))
            }
        };
        let ask = || {
            let (flights, question) = (flights.clone(), question());
            tokio::spawn(async move { flights.ask(key(1), question).await })
        };
        let first = ask();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let waiting: Vec<_> = (0..20).map(|_| ask()).collect();
        gate.add_permits(1);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(0));
        }
        assert_eq!(flights.ask(key(1), question()).await, Ok(0), "remembered");
        assert_eq!((asked.load(Ordering::SeqCst), flights.under_way.lock().len()), (1, 0));
    }

    #[tokio::test]
    async fn a_panic_ends_the_waiting_and_is_not_remembered() {
        let flights = Flights::<usize>::new(10);
        let broken = flights.ask(key(1), || async { panic!("on purpose") }).await;
        assert_eq!(broken, Err(Failed::Broken));
        assert_eq!(flights.ask(key(1), || async { (7, Duration::ZERO) }).await, Ok(7));
        assert_eq!(flights.known(&key(1)), None, "good for nobody but those who waited");
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded() {
        let flights = Flights::<usize>::new(10);
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..UNDER_WAY {
            let flights = flights.clone();
            waiting.spawn(async move { flights.ask(key(number), std::future::pending).await });
        }
        while flights.under_way.lock().len() < UNDER_WAY {
            tokio::task::yield_now().await;
        }
        assert_eq!(flights.ask(key(UNDER_WAY), std::future::pending).await, Err(Failed::TooMany));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_run_out() {
        let flights = Flights::<usize>::new(10);
        let ten = || async { (1, Duration::from_secs(10)) };
        assert_eq!(flights.ask(key(1), ten).await, Ok(1));
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(flights.known(&key(1)), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(flights.known(&key(1)), None);
        assert_eq!(flights.ask(key(1), || async { (2, Duration::ZERO) }).await, Ok(2));
    }
}
