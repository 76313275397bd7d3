//! From a file to a snapshot, as every command that needs one does it.

use crate::config::{Loaded, load};
use crate::observe::metrics::Metrics;
use crate::snapshot::{Shared, Snapshot};
use crate::upstream::{Client, Resolver};
use crate::value::{Issues, Sources};
use std::path::Path;
use std::sync::Arc;

/// A configuration with everything that was found in it.
pub(super) struct Prepared {
    /// As read, if it could be.
    pub loaded: Option<Loaded>,
    /// Ready to run, if there is no error.
    pub snapshot: Option<Snapshot>,
    /// What outlives it.
    pub shared: Option<Shared>,
    /// The texts.
    pub sources: Sources,
    /// What was found, in the order of the text.
    pub issues: Issues,
}

/// Reads and builds a configuration.
///
/// # Errors
/// What the process itself lacks; nothing that a configuration can cause.
pub(super) fn prepare(path: &Path) -> Result<Prepared, String> {
    // Whoever comes first chooses the cryptography of the process; that it is chosen already is all right.
    pingora::tls::install_default_crypto_provider();
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let loaded = load(path, &mut sources, &mut issues);
    let mut prepared = Prepared { loaded: None, snapshot: None, shared: None, sources, issues: Issues::default() };
    if let Some(loaded) = loaded {
        let shared = Shared {
            metrics: Metrics::new(usize::MAX).map_err(|error| error.to_string())?,
            resolver: Arc::new(Resolver::new(&loaded.document.process.resolver)?),
            client: Arc::new(Client::new(None)),
        };
        prepared.snapshot = Snapshot::build(&loaded, &shared, None, &mut issues);
        prepared.loaded = Some(loaded);
        prepared.shared = Some(shared);
    }
    issues.sort();
    prepared.issues = issues;
    Ok(prepared)
}
