//! Files that change under way: read again, and swapped in as one when all of them can be used.

use super::{Live, Material, Tls};
use crate::tasks::{Running, Stop, Task};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells a file from the one that was there before; `None` while there is none. Links are followed, so that one that
/// points elsewhere is another file, as where Kubernetes swaps a whole folder.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// What was seen of the files.
#[derive(Default)]
struct Watch {
    /// At the last look.
    seen: Vec<Stamp>,
    /// When they were last read; nothing yet at the start, because they may have changed since they were first read.
    read: Option<Vec<Stamp>>,
}

impl Task for Tls {
    fn name(&self) -> &str {
        &self.task
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            let mut watch = Watch::default();
            while stop.sleep(LOOK).await {
                let tls = self.clone();
                // A file system may take its time.
                let looked = tokio::task::spawn_blocking(move || {
                    watch.look(&tls);
                    watch
                });
                let Ok(looked) = looked.await else { return };
                watch = looked;
            }
        })
    }
}

impl Watch {
    /// Reads the files when they have changed, and not again until they do. What was changed since the last look may not be
    /// complete yet: certificate and key are two files.
    fn look(&mut self, tls: &Tls) {
        let now: Vec<Stamp> = tls.spec.files().map(stamp).collect();
        let is_settled = now == self.seen;
        if is_settled && self.read.as_ref() != Some(&now) {
            tls.reload();
            self.read = Some(now.clone());
        }
        self.seen = now;
    }
}

impl Tls {
    /// Reads all files, and swaps in what has changed. Where something cannot be used, everything stays as it is.
    fn reload(&self) {
        let listener = &self.spec.listener;
        let live = match Material::read(&self.spec) {
            Ok(material) if material.content == self.live.load().content => return,
            Ok(material) => Live::new(&self.spec, material, &self.tickets).map_err(|why| vec![why]),
            Err(faults) => Err(faults.iter().map(|fault| fault.told(&self.spec)).collect()),
        };
        self.metrics.reloaded(live.is_ok());
        match live {
            Ok(live) => {
                log::info!("listener `{listener}`: changed certificates are in use");
                self.live.store(Arc::new(live));
            }
            Err(faults) => log::error!(
                "listener `{listener}`: changed certificates cannot be used, those before stay in use: {}",
                faults.join("; ")
            ),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.dev(), facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.size()))
}
