//! Where answers are kept, as written.

use super::disk::Settings;
use super::memory::LARGEST;
use super::store::COMING;
use crate::value::{ByteSize, Code, Issue, Issues, Positive, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Memory for answers when nobody says.
pub const DEFAULT_MEMORY: ByteSize = ByteSize(256 << 20);

/// With less than this hardly an answer would be kept.
const LEAST_MEMORY: u64 = 1 << 20;
const LEAST_DISK: ByteSize = ByteSize(64 << 10);

/// Where answers are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    /// Most memory for answers, heads and everything included; nothing is taken before there are answers to keep. Bodies on
    /// their way may take a quarter of it besides. An answer larger than an eighth of it is not kept in memory. Default
    /// `256MiB`.
    pub memory: Option<Spanned<Positive<ByteSize>>>,
    /// Keeps answers on disk, too: beyond what there is room for in memory, and over a restart.
    pub disk: Option<Spanned<Disk>>,
}

/// Answers on disk. Each is a file with checksums: what is torn or foreign is never given. Nothing is synced, so a crash of the
/// machine may cost answers; a killed process loses none. When the disk fails or is full, answers are kept in memory only until
/// it works again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The folder, such as `/var/lib/tollgate/cache`: an absolute path. It is made if there is none; one process at a time uses
    /// it.
    pub path: Spanned<PathBuf>,
    /// Most bytes of files. An answer larger than an eighth of it is not kept there.
    pub size: Spanned<ByteSize>,
}

impl Tiers {
    /// Most bytes of memory.
    pub fn memory(&self) -> usize {
        usize::try_from(self.memory.map_or(DEFAULT_MEMORY, |size| *size.value).0).unwrap_or(usize::MAX)
    }

    /// Where answers are kept on disk, if they are.
    pub fn disk(&self) -> Option<Settings> {
        self.disk
            .as_ref()
            .map(|disk| Settings { path: disk.value.path.value.clone(), size: disk.value.size.value.0 })
    }

    /// The largest answer that is kept anywhere, in bytes.
    pub fn largest(&self) -> u64 {
        let memory = self.memory() as u64;
        let disk = self.disk().map_or(0, |disk| disk.size / LARGEST as u64);
        disk.max(memory / LARGEST as u64).min(memory / COMING as u64)
    }

    /// What is wrong with a route's largest body, as it is written.
    pub fn check_object(&self, most: &Spanned<Positive<ByteSize>>, issues: &mut Issues) {
        if most.value.0 > self.largest() {
            let message = format!(
                "no body of {} can be kept: `cache` has room for {} at most",
                most.value,
                ByteSize(self.largest())
            );
            issues.push(Issue::new(Code::CONFLICT, message).at(most.at).help(
                "answers in memory may take an eighth of `cache.memory`, those on disk an eighth of `cache.disk.size`, and \
                 those on their way to either a quarter of `cache.memory`",
            ));
        }
    }

    /// What is wrong when no route keeps an answer.
    pub fn check_unused(&self, issues: &mut Issues) {
        let memory = self.memory.map(|memory| ("memory", memory.at));
        let disk = self.disk.as_ref().map(|disk| ("disk", disk.at));
        for (key, at) in memory.into_iter().chain(disk) {
            let issue =
                Issue::new(Code::UNUSED, format!("`cache.{key}` is never used: no route has a `cache`"));
            issues.push(issue.at(at).help("write for example `cache: { ttl: 1m }` on a route"));
        }
    }

    /// What is wrong with them.
    pub fn check(&self, issues: &mut Issues) {
        if let Some(memory) = self.memory.filter(|memory| memory.value.0 < LEAST_MEMORY) {
            let most = ByteSize(memory.value.0 / LARGEST as u64);
            let issue = Issue::new(Code::UNLIKELY, format!("no answer larger than {most} is kept in memory"));
            issues.push(issue.at(memory.at).help("an answer may take an eighth of it: write `8MiB` or more"));
        }
        let Some(Spanned { value: disk, .. }) = &self.disk else { return };
        if disk.size.value < LEAST_DISK {
            let issue =
                Issue::new(Code::BAD_VALUE, format!("hardly an answer fits into {}", disk.size.value));
            issues.push(issue.at(disk.size.at).help(format!("write `{LEAST_DISK}` or more")));
        }
        if disk.path.value.is_relative() {
            // Another folder wherever the process is started from would be empty there.
            let message = format!("`{}` is not an absolute path", disk.path.value.display());
            let issue = Issue::new(Code::BAD_VALUE, message).at(disk.path.at);
            issues.push(issue.help("write for example `/var/lib/tollgate/cache`"));
        }
    }
}
