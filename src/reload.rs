//! A new configuration in the place of the running one: read, built and warmed up whole, then swapped in one step; or
//! nothing at all.
//!
//! What has not changed goes on living: [`Snapshot::build`] takes it over from the running snapshot. What a process cannot
//! change while it runs (sockets, threads, the user) is told apart by [`diff`]; it takes a successor, see
//! [`server`](crate::server).

use crate::config::diff::diff;
use crate::config::report::{Format, report};
use crate::config::{Document, Loaded, effective};
use crate::prepare::{Prepared, prepare_again};
use crate::snapshot::{DEFAULT_KEYS, ProcessSettings, Shared, Snapshot};
use crate::store::keeper::Keeper;
use crate::tasks::{Supervisor, Task};
use crate::value::{Issues, Sources, counted};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// How long a new configuration may wait for first health checks, name look-ups and keys before it serves.
pub const WARM_UP: Duration = Duration::from_secs(3);

/// What is known of the running configuration beside its snapshot.
pub struct Live {
    /// As read.
    pub loaded: Loaded,
    /// The texts it came from.
    pub sources: Sources,
    /// As shown to people, secrets redacted.
    pub config: serde_json::Value,
    /// What the process takes from it.
    pub settings: ProcessSettings,
}

impl Live {
    /// Of a configuration that was read.
    pub fn new(loaded: Loaded, sources: Sources) -> Live {
        let (config, settings) = (effective::json(&loaded, &sources), ProcessSettings::new(&loaded.document));
        Live { config, settings, loaded, sources }
    }
}

/// The configuration that runs, and all that is needed to put another in its place.
pub struct Running {
    /// The file it is read from.
    pub path: PathBuf,
    /// What requests get.
    pub current: Arc<ArcSwap<Snapshot>>,
    /// What it was made from.
    pub live: ArcSwap<Live>,
    /// What outlives it.
    pub shared: Shared,
    /// Runs what it needs in the background.
    pub supervisor: Arc<Supervisor>,
    /// The file of quotas, once this process has it.
    pub quotas: OnceLock<Arc<Keeper>>,
    /// Runs beside what the configuration wants.
    own: OnceLock<Arc<dyn Task>>,
    turn: Mutex<()>,
    succeeding: Mutex<()>,
    renewed: watch::Sender<()>,
    successors: mpsc::Sender<Succession>,
}

/// Somebody wants a successor of this process.
pub struct Succession {
    /// Its binary; the one that this process was started from when there is none.
    pub binary: Option<PathBuf>,
    /// How long it may take to get ready.
    pub within: Duration,
    /// Told how it ended: the successor's process id, or why there is none.
    pub ended: oneshot::Sender<Result<u32, String>>,
}

/// A process that was succeeded by this one and finishes what it has begun.
#[derive(Clone, Debug)]
pub struct Waning {
    /// Its process id.
    pub pid: u32,
    left: Arc<AtomicUsize>,
}

/// Where a [`Waning`] process is said to be.
pub struct Left(Arc<AtomicUsize>);

const GONE: usize = usize::MAX;

impl Waning {
    /// One with nothing left that is known of, and where to say more.
    pub fn new(pid: u32) -> (Waning, Left) {
        let left = Arc::new(AtomicUsize::new(0));
        (Waning { pid, left: left.clone() }, Left(left))
    }

    /// How many connections it has left, or nothing when it is gone.
    pub fn connections(&self) -> Option<usize> {
        Some(self.left.load(Ordering::Relaxed)).filter(|left| *left != GONE)
    }
}

impl Left {
    /// Says how many connections it has left, or that it is gone.
    pub fn set(&self, connections: Option<usize>) {
        self.0.store(connections.unwrap_or(GONE), Ordering::Relaxed);
    }
}

/// How a reload ended well.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// Hash of the configuration before.
    pub from: String,
    /// Hash of the new one.
    pub to: String,
    /// Whether it serves now; not after a dry run.
    pub applied: bool,
    /// What took or will take a successor of the process.
    pub needs_upgrade: Vec<String>,
    /// Process id of the successor, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<u32>,
    /// How much differs: `+2 -1 ~3 routes`.
    #[serde(default)]
    pub summary: String,
    /// What differs, a line for each change.
    #[serde(default)]
    pub human: String,
    /// The same for programs.
    #[serde(default)]
    pub changes: serde_json::Value,
}

impl Reloaded {
    fn of(from: &Loaded, to: &Loaded) -> Reloaded {
        let difference = diff(from, to);
        Reloaded {
            from: from.hash.clone(),
            to: to.hash.clone(),
            applied: false,
            needs_upgrade: difference.needs_upgrade().into_iter().map(str::to_owned).collect(),
            successor: None,
            summary: difference.summary(),
            human: difference.to_string(),
            changes: serde_json::to_value(&difference).unwrap_or_default(),
        }
    }
}

/// Why a configuration was not taken. The running one goes on.
#[derive(Debug)]
pub enum Refused {
    /// It is wrong: the number of errors, and all findings in words.
    Invalid(usize, String),
    /// Something else, in words.
    Failed(String),
}

/// Where a new configuration comes from, and what becomes of it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In place of what the file says.
    pub text: Option<String>,
    /// Only looked at.
    pub dry_run: bool,
}

impl Running {
    /// What runs from now on; requests for a successor go to `successors`.
    pub fn new(
        path: PathBuf,
        (snapshot, live): (Snapshot, Live),
        shared: Shared,
        supervisor: Arc<Supervisor>,
        successors: mpsc::Sender<Succession>,
    ) -> Running {
        shared.metrics.config_loaded(&snapshot.hash, env!("CARGO_PKG_VERSION"));
        let series = max_series(&live.loaded.document);
        shared.metrics.limit_series(series);
        Running {
            path,
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            live: ArcSwap::from_pointee(live),
            shared,
            supervisor,
            quotas: OnceLock::new(),
            own: OnceLock::new(),
            turn: Mutex::new(()),
            succeeding: Mutex::new(()),
            renewed: watch::channel(()).0,
            successors,
        }
    }

    /// Told whenever another configuration runs.
    pub fn renewals(&self) -> watch::Receiver<()> {
        self.renewed.subscribe()
    }

    /// Starts everything that a snapshot needs in the background, beside what runs for `also`, and nothing else.
    pub fn adopt(&self, snapshot: &Snapshot, also: Option<&Snapshot>) {
        let mut tasks = snapshot.tasks();
        tasks.extend(also.into_iter().flat_map(Snapshot::tasks));
        tasks.push(self.shared.sweeper.clone());
        tasks.extend(self.quotas.get().map(|keeper| keeper.clone() as Arc<dyn Task>));
        tasks.extend(self.own.get().cloned());
        self.supervisor.adopt(&tasks);
    }

    /// Runs a watch beside what the configuration wants.
    pub fn watch(&self, watch: Arc<FileWatch>) {
        drop(self.own.set(watch));
        self.adopt(&self.current.load(), None);
    }

    /// Asks for a successor and waits for how that ends.
    ///
    /// # Errors
    /// Why there is none; this process goes on.
    pub async fn succeed(&self, binary: Option<PathBuf>, within: Duration) -> Result<u32, String> {
        let _alone = self.succeeding.try_lock().map_err(|_| "another upgrade is under way".to_owned())?;
        let (ended, end) = oneshot::channel();
        let wanted = Succession { binary, within, ended };
        self.successors.send(wanted).await.map_err(|_| "the process is stopping".to_owned())?;
        end.await.unwrap_or_else(|_| Err("the process is stopping".to_owned()))
    }

    /// Reads the configuration again and lets it serve. One at a time.
    ///
    /// # Errors
    /// What is wrong with it. Then nothing has changed.
    pub async fn reload(self: &Arc<Self>, wanted: Wanted) -> Result<Reloaded, Refused> {
        let _turn = self.turn.lock().await;
        let only_looks = wanted.dry_run;
        let result = self.replace(wanted).await;
        match &result {
            // Whoever only looks is told; nothing has happened that others should know of.
            _ if only_looks => {}
            Ok(reloaded) => self.announce(reloaded),
            Err(refused) => self.refuse(refused),
        }
        result
    }

    async fn replace(self: &Arc<Self>, Wanted { text, dry_run }: Wanted) -> Result<Reloaded, Refused> {
        let running = self.clone();
        let from_file = text.is_none();
        let prepared = tokio::task::spawn_blocking(move || {
            prepare_again(&running.path, text.as_deref(), &running.shared, &running.current.load_full())
        });
        let prepared = prepared.await.map_err(|_| Refused::Failed("reading it failed".to_owned()))?;
        let Prepared { loaded: Some(loaded), snapshot: Some(snapshot), sources, issues, .. } = prepared
        else {
            return Err(Refused::Invalid(
                prepared.issues.errors(),
                words(&prepared.issues, &prepared.sources),
            ));
        };
        if issues.warnings() > 0 {
            log::warn!("{}", words(&issues, &sources).trim_end());
        }
        let live = Live::new(loaded, sources);
        let before = self.live.load_full();
        let mut reloaded = Reloaded::of(&before.loaded, &live.loaded);
        if dry_run {
            return Ok(reloaded);
        }
        if reloaded.needs_upgrade.is_empty() {
            self.swap(snapshot, live).await;
        } else if from_file {
            reloaded.successor = Some(self.succeed(None, SUCCESSOR_TIME).await.map_err(Refused::Failed)?);
        } else {
            let needs = reloaded.needs_upgrade.join(", ");
            return Err(Refused::Failed(format!("{needs}: write it to the file and reload instead")));
        }
        reloaded.applied = true;
        Ok(reloaded)
    }

    /// From here on nothing can fail.
    async fn swap(&self, snapshot: Snapshot, live: Live) {
        let document = &live.loaded.document;
        let keys = document.stores.local.max_keys.map_or(DEFAULT_KEYS, |keys| *keys) as usize;
        self.shared.memory.set_max_keys(keys);
        let (cache, tiers) = (self.shared.cache.clone(), document.cache.clone());
        // What has to leave may be much.
        drop(tokio::task::spawn_blocking(move || cache.resize(&tiers)));
        self.shared.metrics.limit_series(max_series(document));
        if let (Some(keeper), Some((_, flush))) = (self.quotas.get(), &live.settings.quotas) {
            keeper.set_interval(*flush);
        }
        let before = self.current.load_full();
        self.adopt(&snapshot, Some(&before));
        warm_up(&snapshot, WARM_UP).await;
        let hash = snapshot.hash.clone();
        let snapshot = Arc::new(snapshot);
        self.current.store(snapshot.clone());
        self.live.store(Arc::new(live));
        self.adopt(&snapshot, None);
        self.renewed.send_replace(());
        self.shared.metrics.config_loaded(&hash, env!("CARGO_PKG_VERSION"));
    }

    fn announce(&self, reloaded: &Reloaded) {
        match reloaded.successor {
            Some(pid) => log::info!("reloaded by process {pid}: {}", reloaded.needs_upgrade.join(", ")),
            None => log::info!("reloaded: {}, {}", self.current.load().describe(), reloaded.summary),
        }
    }

    fn refuse(&self, refused: &Refused) {
        self.shared.metrics.config_refused();
        let why = match refused {
            Refused::Invalid(errors, words) => {
                crate::observe::log::say(format_args!("{}", words.trim_end()));
                counted(*errors, "error")
            }
            Refused::Failed(why) => why.clone(),
        };
        let hash = self.live.load().loaded.hash.clone();
        log::error!("reload refused: {why}, running config {} unchanged", hash.get(..6).unwrap_or(&hash));
    }
}

/// How long a successor may take to get ready when nobody says.
pub const SUCCESSOR_TIME: Duration = Duration::from_secs(30);

/// Most time series that requests may create.
fn max_series(document: &Document) -> usize {
    document.telemetry.metrics.max_series.map_or(20_000, |most| *most) as usize
}

fn words(issues: &Issues, sources: &Sources) -> String {
    let mut text = Vec::new();
    // Writing to memory does not fail.
    drop(report(&mut text, issues, sources, &Format::Human { color: false }, ""));
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits for the first health checks and name look-ups of all upstreams and the keys of all issuers, but not for long.
pub async fn warm_up(snapshot: &Snapshot, within: Duration) {
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    for upstream in &snapshot.upstreams {
        upstream.warm(left()).await;
    }
    for named in &snapshot.providers {
        if !named.provider.warm(left()).await {
            log::warn!("provider `{}` cannot check credentials yet", named.name);
        }
    }
    if let Some((_, redis)) = &snapshot.redis
        && !redis.ready(left()).await
    {
        log::warn!("Redis does not answer yet; limits are decided as `on_failure` says");
    }
}

/// Reloads whenever one of the files of the configuration changes: their sizes and times are looked at every second, which
/// also notices files that are swapped through symbolic links.
pub struct FileWatch(pub Arc<Running>);

const LOOK: Duration = Duration::from_secs(1);

impl Task for FileWatch {
    fn name(&self) -> &str {
        "watch of the configuration"
    }

    fn run(self: Arc<Self>, mut stop: crate::tasks::Stop) -> crate::tasks::Running {
        Box::pin(async move {
            let (mut loaded, mut last) = (self.look(), self.look());
            while stop.sleep(LOOK).await {
                let now = self.look();
                // What is still being written is left alone until it has rested for one look.
                if now != loaded && now == last {
                    log::info!("the configuration has changed");
                    // What is wrong with it has been said.
                    let _ = self.0.reload(Wanted::default()).await;
                    loaded = self.look();
                }
                last = self.look();
            }
        })
    }
}

impl FileWatch {
    /// Files, and their folders: an included file may be new.
    fn look(&self) -> Vec<Option<(u64, SystemTime)>> {
        let live = self.0.live.load();
        let files = live.sources.0.iter().map(|source| PathBuf::from(&source.name));
        let paths = files.flat_map(|file| [file.parent().map(Path::to_owned), Some(file)]);
        paths.flatten().map(|path| facts(&path)).collect()
    }
}

fn facts(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}
