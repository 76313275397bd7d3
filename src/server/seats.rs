//! Which connections wait for their clients, so that room can be made for others when there is none.
//!
//! Somebody who opens connections and says nothing, or half a head, would otherwise keep everybody else out until his time is
//! up. A connection on which something is being answered is never ended here.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// Parts of the table, each with a lock of its own.
const PARTS: u64 = 16;

/// How long everybody may wait, however crowded it is. Honest clients speak at once, or are not among those who came first.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// How long nobody is asked after nobody could be: all seats have to be looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// How many are asked to go at once, at most: an eighth of those who wait, and so few that nobody else has to wait for it.
const PART_TO_GO: usize = 8;
const MOST_TO_GO: usize = 8;

/// How many seats are looked at for that, and then the rest of their part: who waits longest of so many is as good as who waits
/// longest of all, and nobody else has to wait while tens of thousands are compared.
const MOST_SEEN: usize = 512;

// What stands for a time in `Seat::since`.
const BUSY: u64 = 0;
const GONE: u64 = u64::MAX;

/// The seats of all connections.
#[derive(Clone)]
pub(super) struct Seats(Arc<Table>);

struct Table {
    parts: Vec<Mutex<HashMap<u64, Arc<Seat>>>>,
    next: AtomicU64,
    /// The part that is looked at next for those who wait.
    turn: AtomicU64,
    began: Instant,
    /// When there was last nobody who could be asked to go, in milliseconds since the beginning.
    in_vain: AtomicU64,
    /// Connections that were asked to go, and have not yet.
    going: AtomicUsize,
}

/// Where a connection sits.
pub(super) struct Seat {
    listener: u16,
    began: Instant,
    /// Since when it waits for its client, in milliseconds since the beginning and never 0; or something else.
    since: AtomicU64,
    /// Whether anything has been asked on it.
    known: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

/// Holds a seat until it is dropped.
pub(super) struct Seated {
    table: Arc<Table>,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

impl Default for Seats {
    fn default() -> Seats {
        Seats(Arc::new(Table {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            began: Instant::now(),
            in_vain: AtomicU64::new(0),
            going: AtomicUsize::new(0),
        }))
    }
}

impl Seats {
    /// A seat for a connection to the listener of this number, which begins to wait.
    pub(super) fn take(&self, listener: u16) -> Seated {
        let table = self.0.clone();
        let number = table.next.fetch_add(1, Ordering::Relaxed);
        let (since, known, task) = (AtomicU64::new(BUSY), AtomicBool::new(false), Mutex::default());
        let seat = Arc::new(Seat { listener, began: table.began, since, known, task });
        seat.wait();
        if let Some(part) = table.part(number) {
            part.lock().insert(number, seat.clone());
        }
        Seated { table, number, seat }
    }

    /// Connections that were asked to go, and have not yet.
    pub(super) fn going(&self) -> usize {
        self.0.going.load(Ordering::Relaxed)
    }

    /// Asks some who have waited long on the listener of this number to go; gives how many. First those who have never asked
    /// anything.
    pub(super) fn make_room(&self, listener: u16) -> usize {
        let (now, last) = (millis(self.0.began), self.0.in_vain.load(Ordering::Relaxed));
        if last > 0 && Duration::from_millis(now.saturating_sub(last)) < PAUSE {
            return 0;
        }
        let mut waiting = self.waiting(listener, now);
        let count = waiting.len().div_ceil(PART_TO_GO).min(MOST_TO_GO);
        if count < waiting.len() {
            waiting.select_nth_unstable_by_key(count, |(order, _)| *order);
            waiting.truncate(count);
        }
        let asked = waiting.iter().filter(|((_, since), seat)| seat.ask_to_go(*since, &self.0.going)).count();
        if asked == 0 {
            self.0.in_vain.store(now, Ordering::Relaxed);
        }
        asked
    }

    /// Those of enough parts who have waited for long enough, and in which order they go.
    fn waiting(&self, listener: u16, now: u64) -> Vec<((bool, u64), Arc<Seat>)> {
        let latest = now.saturating_sub(u64::try_from(LEAST_WAIT.as_millis()).unwrap_or(u64::MAX));
        let (mut seen, mut waiting) = (0, Vec::new());
        for _ in 0..PARTS {
            let Some(part) = self.0.part(self.0.turn.fetch_add(1, Ordering::Relaxed)) else { break };
            let part = part.lock();
            seen += part.len();
            let seats = part.values().filter(|seat| seat.listener == listener);
            waiting.extend(seats.filter_map(|seat| {
                let since = seat.since.load(Ordering::Relaxed);
                let order = (seat.known.load(Ordering::Relaxed), since);
                (since != BUSY && since <= latest).then(|| (order, seat.clone()))
            }));
            if seen >= MOST_SEEN && !waiting.is_empty() {
                break;
            }
        }
        waiting
    }
}

impl Table {
    fn part(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Seat>>>> {
        self.parts.get(usize::try_from(number % PARTS).unwrap_or_default())
    }
}

impl Seat {
    /// Whoever serves the connection from now on, and is ended when it is asked to go.
    pub(super) fn is_served_by(&self, task: AbortHandle) {
        *self.task.lock() = Some(task);
        if self.since.load(Ordering::Acquire) == GONE {
            self.end();
        }
    }

    /// The client is waited for.
    pub(super) fn wait(&self) {
        let from = self.since.load(Ordering::Relaxed);
        if from != GONE {
            let now = millis(self.began).max(1);
            // Fails only for one that has been asked to go.
            let _ = self.since.compare_exchange(from, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The client has asked for something; `false` when the connection has been asked to go before.
    pub(super) fn be_busy(&self) -> bool {
        self.known.store(true, Ordering::Relaxed);
        self.since
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |since| (since != GONE).then_some(BUSY))
            .is_ok()
    }

    /// Ends the connection, if it still waits as it did.
    fn ask_to_go(&self, since: u64, going: &AtomicUsize) -> bool {
        let asked = self.since.compare_exchange(since, GONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if asked {
            going.fetch_add(1, Ordering::Relaxed);
            self.end();
        }
        asked
    }

    fn end(&self) {
        if let Some(task) = &*self.task.lock() {
            task.abort();
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        if let Some(part) = self.table.part(self.number) {
            part.lock().remove(&self.number);
        }
        if self.seat.since.load(Ordering::Relaxed) == GONE {
            self.table.going.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if so many had sat down, one each millisecond, long ago.
    fn table(seats: &Seats, count: u64) -> Vec<Seated> {
        let seated: Vec<Seated> = (0..count).map(|_| seats.take(0)).collect();
        for (since, one) in (1..).zip(&seated) {
            one.seat.since.store(since, Ordering::Relaxed);
        }
        seated
    }

    fn long_since(seats: &mut Seats) {
        let table = Arc::get_mut(&mut seats.0).unwrap();
        table.began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    }

    #[tokio::test]
    async fn who_has_waited_longest_goes_first_and_who_is_busy_stays() {
        let mut seats = Seats::default();
        long_since(&mut seats);
        let seated = table(&seats, 32);
        for one in &seated {
            one.seat.is_served_by(tokio::spawn(std::future::pending::<()>()).abort_handle());
        }
        assert!(seated[0].seat.be_busy());
        assert!(seated[1].seat.be_busy());
        seated[1].seat.wait();
        seated[1].seat.since.store(1, Ordering::Relaxed);
        let fresh = seats.take(0);
        let other = seats.take(1);
        other.seat.since.store(1, Ordering::Relaxed);
        assert_eq!((seats.make_room(0), seats.going()), (4, 4), "an eighth of 31");
        let gone: Vec<usize> = (0..32).filter(|number| !seated[*number].seat.be_busy()).collect();
        assert_eq!(gone, [2, 3, 4, 5], "not the busy one, and not the one that is known");
        assert!(fresh.seat.be_busy() && other.seat.be_busy());
        assert_eq!(seats.make_room(0), 0, "now everybody is busy");
        drop(seated);
        assert_eq!(seats.going(), 0);
        assert!(seats.0.parts.iter().map(|part| part.lock().len()).sum::<usize>() == 2);
    }

    #[test]
    fn of_very_many_only_some_are_looked_at() {
        let mut seats = Seats::default();
        long_since(&mut seats);
        let seated = table(&seats, 4_000);
        for round in 1..=PARTS as usize {
            assert_eq!((seats.make_room(0), seats.going()), (MOST_TO_GO, round * MOST_TO_GO));
        }
        let gone = |one: &Seated| one.seat.since.load(Ordering::Relaxed) == GONE;
        assert!(!seated[1_000..].iter().any(gone), "those who have waited longest");
        let apart = |part| seated.iter().skip(part).step_by(PARTS as usize).filter(|one| gone(one)).count();
        assert!((0..PARTS as usize).all(|part| apart(part) >= 4), "it is every part's turn");
    }

    #[tokio::test]
    async fn a_task_that_comes_late_is_ended_too() {
        let mut seats = Seats::default();
        long_since(&mut seats);
        let seated = table(&seats, 1);
        assert_eq!(seats.make_room(0), 1);
        let task = tokio::spawn(std::future::pending::<()>());
        seated[0].seat.is_served_by(task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
        seated[0].seat.wait();
        assert!(!seated[0].seat.be_busy(), "gone is gone");
    }
}
