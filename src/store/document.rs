//! Where counters are kept, as written.

use crate::value::{Positive, Secret, Span, Spanned, Within};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Where counters are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stores {
    /// On this machine.
    #[serde(default)]
    pub local: Local,
    /// In Redis, for several nodes.
    pub redis: Option<Spanned<Redis>>,
}

/// Counters on this machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// Most keys of limits kept in memory; beyond, those used longest ago are dropped and counted. Default 1000000.
    pub max_keys: Option<Positive<u32>>,
    /// File that quotas are kept in over a restart: an absolute path. Default `/var/lib/tollgate/quotas`; `none` keeps
    /// them in memory only.
    pub quotas: Option<Spanned<PathBuf>>,
    /// How often it is written; that much is lost at most when the process is killed. Default `1s`.
    pub flush: Option<Positive<Span>>,
}

/// Counters in Redis.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://`, `rediss://` (TLS), `redis+sentinel://host:26379,host2:26379/MASTER[/DB]` or
    /// `redis+cluster://host:7000,host2:7001`; user and password as in any URL. `rediss+sentinel` and `rediss+cluster` with TLS.
    pub url: Spanned<Secret>,
    /// Longest time a request waits for Redis. Default `50ms`.
    pub timeout: Option<Positive<Span>>,
    /// Connections; each carries many requests at once. Default 2.
    pub pool: Option<Within<1, 64>>,
    /// In front of every key. What stands in braces keeps the keys of a cluster together. Default `tg:{tollgate}:`.
    pub prefix: Option<String>,
    /// CA certificates in PEM, for TLS. Default: those of the system.
    pub ca: Option<Spanned<PathBuf>>,
}
