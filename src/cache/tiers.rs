//! Where answers are kept, as written.

use super::disk::Settings;
use crate::value::{ByteSize, Code, Issue, Issues, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Memory for answers when nobody says.
pub const DEFAULT_MEMORY: ByteSize = ByteSize(256 << 20);

/// Where answers are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    /// Most memory for answers, heads and everything included; nothing is taken before there are answers to keep. Bodies on
    /// their way may take a quarter of it besides. An answer larger than an eighth of it is not kept in memory. Default
    /// `256MiB`.
    pub memory: Option<ByteSize>,
    /// Keeps answers on disk, too: beyond what there is room for in memory, and over a restart.
    pub disk: Option<Disk>,
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
    pub size: ByteSize,
}

impl Tiers {
    /// Most bytes of memory.
    pub fn memory(&self) -> usize {
        usize::try_from(self.memory.unwrap_or(DEFAULT_MEMORY).0).unwrap_or(usize::MAX)
    }

    /// Where answers are kept on disk, if they are.
    pub fn disk(&self) -> Option<Settings> {
        self.disk.as_ref().map(|disk| Settings { path: disk.path.value.clone(), size: disk.size.0 })
    }

    /// What is wrong with them.
    pub fn check(&self, issues: &mut Issues) {
        let Some(disk) = &self.disk else { return };
        if disk.path.value.is_relative() {
            // Another folder wherever the process is started from would be empty there.
            let message = format!("`{}` is not an absolute path", disk.path.value.display());
            let issue = Issue::new(Code::BAD_VALUE, message).at(disk.path.at);
            issues.push(issue.help("write for example `/var/lib/tollgate/cache`"));
        }
    }
}
