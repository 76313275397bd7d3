//! Where answers are kept, as written.

use crate::value::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

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
}

impl Tiers {
    /// Most bytes of memory.
    pub fn memory(&self) -> usize {
        usize::try_from(self.memory.unwrap_or(DEFAULT_MEMORY).0).unwrap_or(usize::MAX)
    }
}
