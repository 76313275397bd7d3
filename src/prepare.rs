//! From a file to a snapshot: as every command that needs one does it, and as a running process does it again.

use crate::config::{Loaded, load, load_text};
use crate::observe::metrics::Metrics;
use crate::snapshot::{Shared, Snapshot};
use crate::value::{Code, Issue, Issues, Name, Sources};
use std::path::Path;

/// A configuration with everything that was found in it.
pub struct Prepared {
    /// As read, if it could be.
    pub loaded: Option<Loaded>,
    /// Ready to run, if there is no error.
    pub snapshot: Option<Snapshot>,
    /// What outlives it; there is one already when a configuration is prepared again.
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
pub fn prepare(path: &Path) -> Result<Prepared, String> {
    // Whoever comes first chooses the cryptography of the process; that it is chosen already is all right.
    pingora::tls::install_default_crypto_provider();
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let loaded = load(path, &mut sources, &mut issues);
    let shared = match &loaded {
        Some(loaded) => {
            let metrics = Metrics::new(usize::MAX).map_err(|error| error.to_string())?;
            Some(Shared::new(&loaded.document, metrics)?)
        }
        None => None,
    };
    let mut snapshot = None;
    if let (Some(loaded), Some(shared)) = (&loaded, &shared) {
        snapshot = build(loaded, shared, None, &mut issues);
    }
    issues.sort();
    Ok(Prepared { loaded, snapshot, shared, sources, issues })
}

/// Reads and builds a configuration in place of the `running` one, whose state lives on in it where it has not changed. With
/// a `text` it is read in place of what the file says.
pub fn prepare_again(path: &Path, text: Option<&str>, shared: &Shared, running: &Snapshot) -> Prepared {
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let mut loaded = match text {
        Some(text) => load_text(path, text, &mut sources, &mut issues),
        None => load(path, &mut sources, &mut issues),
    };
    let mut snapshot = None;
    if let Some(loaded) = &mut loaded {
        // Connections know their listener by its number, so it keeps the one it has wherever it stands in the file now.
        let number = |name: &Name| running.listeners.iter().position(|listener| listener.name == *name);
        loaded.document.listeners.0.sort_by_key(|(name, _)| number(&name.value).unwrap_or(usize::MAX));
        snapshot = build(loaded, shared, Some(running), &mut issues);
    }
    issues.sort();
    Prepared { loaded, snapshot, shared: None, sources, issues }
}

fn build(
    loaded: &Loaded,
    shared: &Shared,
    running: Option<&Snapshot>,
    issues: &mut Issues,
) -> Option<Snapshot> {
    let mut further = Issues::default();
    let snapshot = Snapshot::build(loaded, shared, running, &mut further);
    if !loaded.whole {
        further.0.retain(|issue| is_certain(issue, loaded));
        // What is defined cannot be listed when some of it could not be read.
        further.0.iter_mut().for_each(|issue| {
            issue.notes.retain(|note| !note.starts_with("no ") && !note.starts_with("defined:"))
        });
    }
    further.0.iter_mut().for_each(|issue| mask(issue, loaded));
    issues.0.extend(further.0);
    snapshot.filter(|_| issues.errors() == 0)
}

/// Findings of building quote values; what came from outside must not be told.
fn mask(issue: &mut Issue, loaded: &Loaded) {
    issue.message = loaded.mask(&issue.message);
    issue.label = loaded.mask(&issue.label);
    issue
        .notes
        .iter_mut()
        .chain(issue.also.iter_mut().map(|(_, note)| note))
        .for_each(|text| *text = loaded.mask(text));
}

/// Whether a finding in a document that is not whole is a finding all the same, and not caused by what is missing.
fn is_certain(issue: &Issue, loaded: &Loaded) -> bool {
    match issue.code {
        Code::ADDRESS_TWICE
        | Code::ADMIN_OPEN
        | Code::BAD_PATH
        | Code::BAD_TEMPLATE
        | Code::BAD_TLS
        | Code::UNREADABLE => true,
        // The name may be defined by something that could not be read.
        Code::UNKNOWN_REFERENCE => {
            let name = issue.message.split('`').nth(1).unwrap_or_default();
            let defined = |section: &str| {
                loaded.tree.value(section).is_some_and(|section| section.value(name).is_some())
            };
            !["upstreams", "listeners", "auth", "consumers", "plans"].into_iter().any(defined)
        }
        _ => false,
    }
}
