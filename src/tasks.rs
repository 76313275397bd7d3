//! Everything that runs in the background: what a [`Task`] is, and the [`Supervisor`] that keeps the wanted ones running.
//!
//! A snapshot only *declares* tasks. After it has been stored, [`Supervisor::adopt`] compares them with what runs: the
//! same `Arc` keeps running undisturbed, a new one starts, one that is gone stops.

use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

/// The pause before the first restart of a task that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. A task that ran at least this long starts again with [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a task may take to stop once told, before it is cut off.
const STOPPING: Duration = Duration::from_secs(5);

/// A future that owns all it needs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that a request waits for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that runs until it is told to stop: health checks, name resolution, a file watch.
///
/// Returning before [`Stop`] says so is a failure, like a panic: it is logged and counted, and `run` is called again
/// after a pause.
pub trait Task: Send + Sync + 'static {
    /// What the log calls it, such as `health of app`.
    fn name(&self) -> &str;

    /// Runs until `stop` is told. The future must not block its thread.
    fn run(self: Arc<Self>, stop: Stop) -> Running;
}

/// The supervisor's word that a task shall end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Completes when the task shall end. Cancel safe.
    pub async fn told(&mut self) {
        // A dropped sender means that nobody supervises any more: the same answer.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Sleeps; `false` when the task shall end instead of going on.
    pub async fn sleep(&mut self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.told() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Keeps the wanted tasks running on one runtime.
pub struct Supervisor {
    runtime: Handle,
    running: Mutex<Vec<Supervised>>,
    failures: Arc<AtomicU64>,
}

struct Supervised {
    task: Arc<dyn Task>,
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
}

impl Supervisor {
    /// A supervisor without tasks, which will run them on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Supervisor { runtime, running: Mutex::new(Vec::new()), failures: Arc::default() }
    }

    /// Makes `wanted` exactly what runs. Tasks are told apart by their `Arc`, so one named twice runs once. Tasks that
    /// are no longer wanted are told to stop but not waited for; one that ignores this is cut off after five seconds.
    pub fn adopt(&self, wanted: &[Arc<dyn Task>]) {
        let still: HashSet<usize> = wanted.iter().map(address).collect();
        let mut running = self.running.lock();
        let (kept, gone): (Vec<_>, Vec<_>) =
            running.drain(..).partition(|supervised| still.contains(&address(&supervised.task)));
        let mut known: HashSet<usize> = kept.iter().map(|supervised| address(&supervised.task)).collect();
        *running = kept;
        let new = wanted.iter().filter(|task| known.insert(address(task)));
        running.extend(new.map(|task| self.start(task)));
        drop(running);
        for supervised in gone {
            self.runtime.spawn(supervised.end());
        }
    }

    /// Stops every task and waits until all have ended or were cut off, at most five seconds.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for supervised in &running {
            supervised.stop.send_replace(true);
        }
        let deadline = Instant::now() + STOPPING;
        for supervised in running {
            supervised.end_by(deadline).await;
        }
    }

    /// How many tasks run or wait for their restart.
    pub fn tasks(&self) -> usize {
        self.running.lock().len()
    }

    /// How often a task has panicked or ended on its own since the start of the process.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn start(&self, task: &Arc<dyn Task>) -> Supervised {
        let (stop, told) = watch::channel(false);
        let join = self.runtime.spawn(supervise(Arc::clone(task), Stop(told), Arc::clone(&self.failures)));
        Supervised { task: Arc::clone(task), stop, join }
    }
}

impl Supervised {
    async fn end(self) {
        self.end_by(Instant::now() + STOPPING).await;
    }

    async fn end_by(mut self, deadline: Instant) {
        self.stop.send_replace(true);
        if tokio::time::timeout_at(deadline, &mut self.join).await.is_err() {
            log::warn!("background task `{}` did not stop when told and was cut off", self.task.name());
            self.join.abort();
        }
    }
}

/// What a task is told apart by: where its data lies, since one type may have several vtables.
fn address(task: &Arc<dyn Task>) -> usize {
    Arc::as_ptr(task).addr()
}

async fn supervise(task: Arc<dyn Task>, mut stop: Stop, failures: Arc<AtomicU64>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        // A task of its own, so that a panic ends only this run.
        let mut run = CutOnDrop(tokio::spawn(Arc::clone(&task).run(stop.clone())));
        let ended = (&mut run.0).await;
        if *stop.0.borrow() {
            return;
        }
        failures.fetch_add(1, Ordering::Relaxed);
        if started.elapsed() >= LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let wait = jitter(pause);
        log::error!("background task `{}` {}; next start in {wait:.1?}", task.name(), how(ended));
        if !stop.sleep(wait).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn how(ended: Result<(), JoinError>) -> String {
    let panic = match ended.map_err(JoinError::try_into_panic) {
        Ok(()) => return "ended although nobody told it to".to_owned(),
        Err(Err(cancelled)) => return format!("was cut off: {cancelled}"),
        Err(Ok(panic)) => panic,
    };
    // A message that was put together while running may quote a secret.
    match panic.downcast_ref::<&'static str>() {
        Some(written) => format!("panicked: {written}"),
        None => "panicked".to_owned(),
    }
}

/// A spawned run that does not outlive the one who waits for it.
struct CutOnDrop(JoinHandle<()>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `time` give or take a tenth, so that what started together does not stay in step.
pub fn jitter(time: Duration) -> Duration {
    let tenth = (time / 10).as_nanos().min(u128::from(u64::MAX)) as u64;
    let offset = if tenth == 0 { 0 } else { random() % (2 * tenth) };
    time - Duration::from_nanos(tenth) + Duration::from_nanos(offset)
}

/// A random number, good enough to spread load and never for secrets; about a nanosecond.
pub fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64: every seed is good, and the state is one word.
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Counts its starts; what it does then is `act`.
    struct Probe {
        starts: AtomicUsize,
        live: AtomicUsize,
        act: fn(usize) -> Act,
    }

    enum Act {
        Wait,
        Panic,
        Return,
        Ignore,
    }

    struct Live<'a>(&'a AtomicUsize);
    impl Drop for Live<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Task for Probe {
        fn name(&self) -> &str {
            "probe"
        }
        fn run(self: Arc<Self>, mut stop: Stop) -> Running {
            Box::pin(async move {
                let start = self.starts.fetch_add(1, Ordering::SeqCst);
                self.live.fetch_add(1, Ordering::SeqCst);
                let _live = Live(&self.live);
                match (self.act)(start) {
                    Act::Wait => stop.told().await,
                    Act::Panic => panic!("on purpose"),
                    Act::Return => {}
                    Act::Ignore => std::future::pending().await,
                }
            })
        }
    }

    fn probe(act: fn(usize) -> Act) -> Arc<Probe> {
        Arc::new(Probe { starts: AtomicUsize::new(0), live: AtomicUsize::new(0), act })
    }

    fn wanted(tasks: &[&Arc<Probe>]) -> Vec<Arc<dyn Task>> {
        tasks.iter().map(|task| Arc::clone(task) as Arc<dyn Task>).collect()
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the condition never came true");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_arc_keeps_running_gone_stops_new_starts() {
        let supervisor = Supervisor::new(Handle::current());
        let (stays, goes, comes) = (probe(|_| Act::Wait), probe(|_| Act::Wait), probe(|_| Act::Wait));
        supervisor.adopt(&wanted(&[&stays, &goes, &stays]));
        until(|| stays.live.load(Ordering::SeqCst) == 1 && goes.live.load(Ordering::SeqCst) == 1).await;
        assert_eq!(supervisor.tasks(), 2, "the same task named twice runs once");

        supervisor.adopt(&wanted(&[&comes, &stays]));
        until(|| goes.live.load(Ordering::SeqCst) == 0 && comes.live.load(Ordering::SeqCst) == 1).await;
        assert_eq!(stays.starts.load(Ordering::SeqCst), 1, "what stays is not restarted");
        assert_eq!((supervisor.tasks(), supervisor.failures()), (2, 0));

        supervisor.stop().await;
        assert_eq!((stays.live.load(Ordering::SeqCst), comes.live.load(Ordering::SeqCst)), (0, 0));
        assert_eq!(supervisor.tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_an_early_return_are_counted_and_restarted_with_growing_pauses() {
        for act in
            [|n| if n < 3 { Act::Panic } else { Act::Wait }, |n| if n < 3 { Act::Return } else { Act::Wait }]
        {
            let supervisor = Supervisor::new(Handle::current());
            let fails = probe(act);
            let begin = Instant::now();
            supervisor.adopt(&wanted(&[&fails]));
            until(|| fails.starts.load(Ordering::SeqCst) == 4).await;
            assert_eq!(supervisor.failures(), 3);
            let paused = begin.elapsed().as_secs_f64();
            assert!((6.2..=7.8).contains(&paused), "1 s, 2 s and 4 s give or take a tenth, not {paused}");
            supervisor.stop().await;
            assert_eq!(fails.live.load(Ordering::SeqCst), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_its_restart_can_be_stopped() {
        let supervisor = Supervisor::new(Handle::current());
        let fails = probe(|_| Act::Panic);
        supervisor.adopt(&wanted(&[&fails]));
        until(|| supervisor.failures() == 4).await;
        supervisor.adopt(&[]);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(fails.starts.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_stop_is_cut_off() {
        let supervisor = Supervisor::new(Handle::current());
        let deaf = probe(|_| Act::Ignore);
        supervisor.adopt(&wanted(&[&deaf]));
        until(|| deaf.live.load(Ordering::SeqCst) == 1).await;
        supervisor.stop().await;
        until(|| deaf.live.load(Ordering::SeqCst) == 0).await;
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for _ in 0..1000 {
            let time = jitter(Duration::from_secs(10));
            assert!(time >= Duration::from_secs(9) && time <= Duration::from_secs(11), "{time:?}");
        }
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
    }
}
