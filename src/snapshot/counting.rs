//! What limits are counted with.

use super::{Shared, Snapshot};
use crate::build::problem;
use crate::config::Loaded;
use crate::config::document::Document;
use crate::filters::limits::Plans;
use crate::filters::limits::rules::{
    Backend, LimitRule, Mode as Written, OnFailure as WrittenFailure, StoreKind,
};
use crate::store::Rule;
use crate::store::counters::{Counters, Mode, OnFailure, Shared as SharedCounters};
use crate::store::document::Redis;
use crate::store::redis::RedisStore;
use crate::store::redis::fast::{Fast, bound};
use crate::value::{Code, Issue, Issues, Rate, Spanned};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Counters, and what they need in the background.
pub(super) struct Counting {
    pub(super) counters: Arc<Counters>,
    pub(super) redis: Option<(String, Arc<RedisStore>)>,
    pub(super) fast: Option<Arc<Fast>>,
}

/// Builds them; what is wrong is reported.
pub(super) fn build(
    loaded: &Loaded,
    shared: &Shared,
    running: Option<&Snapshot>,
    issues: &mut Issues,
) -> Counting {
    if let Some(path) = loaded.document.stores.local.quotas.as_ref().filter(|path| is_relative(&path.value)) {
        let message = format!("`{}` is not an absolute path", path.value.display());
        let issue = Issue::new(Code::BAD_VALUE, message).at(path.at);
        issues.push(issue.help("write for example `/var/lib/tollgate/quotas`, or `none`"));
    }
    let backend = &loaded.document.defaults.limits_backend;
    check_mode(backend, issues);
    let redis = loaded.document.stores.redis.as_ref();
    let redis = match (backend.value.store, redis) {
        (StoreKind::Memory, None) => None,
        (StoreKind::Memory, Some(written)) => {
            let issue = Issue::new(Code::UNUSED, "`stores.redis` is never used").at(written.at);
            issues.push(issue.help("write `limits_backend: { store: redis }` in `defaults`"));
            None
        }
        (StoreKind::Redis, None) => {
            let issue = Issue::new(Code::UNKNOWN_REFERENCE, "`stores.redis` is not defined").at(backend.at);
            issues.push(issue.help("write `stores: { redis: { url: redis://… } }`"));
            None
        }
        (StoreKind::Redis, Some(written)) => {
            issues.take(connection(written, loaded, running)).map(|redis| (identity(&written.value), redis))
        }
    };
    let fast = redis.as_ref().filter(|_| backend.value.mode == Written::Fast).map(|(_, redis)| {
        let before = running.and_then(|running| running.fast.clone());
        let sync = sync(&backend.value);
        let most = loaded.document.stores.local.max_keys.map_or(super::DEFAULT_KEYS, |keys| *keys) as usize;
        before
            .filter(|fast| Arc::ptr_eq(fast.store(), redis) && fast.sync() == sync)
            .unwrap_or_else(|| Fast::new(redis.clone(), sync, most))
    });
    let mode = match (&fast, &redis) {
        (Some(fast), _) => Some(Mode::Fast(fast.clone())),
        (None, Some((_, redis))) => Some(Mode::Exact(redis.clone())),
        (None, None) => None,
    };
    let on_failure = match backend.value.on_failure {
        WrittenFailure::Local => OnFailure::Local,
        WrittenFailure::Allow => OnFailure::Allow,
        WrittenFailure::Deny => OnFailure::Deny,
    };
    let shared_counters = mode.map(|mode| SharedCounters { mode, on_failure });
    Counting { counters: Arc::new(Counters::new(shared.memory.clone(), shared_counters)), redis, fast }
}

/// What is only for nodes that count together, and each for itself.
fn check_mode(backend: &Spanned<Backend>, issues: &mut Issues) {
    let is_fast = backend.value.mode == Written::Fast;
    if is_fast && backend.value.store == StoreKind::Memory {
        let issue = Issue::new(Code::CONFLICT, "`mode: fast` is for nodes that count together in Redis")
            .at(backend.at);
        issues.push(issue.help("write `store: redis`, or leave `mode` out"));
    }
    let sync = backend.value.sync.map(|sync| ("sync", sync.at));
    let nodes = backend.value.nodes.map(|nodes| ("nodes", nodes.at));
    for (key, at) in sync.into_iter().chain(nodes).filter(|_| !is_fast) {
        let issue = Issue::new(Code::NO_EFFECT, format!("`{key}` is for `mode: fast` only")).at(at);
        issues.push(issue.help(format!("leave `{key}` out")));
    }
}

/// A file that is another one wherever the process is started from would lose what was counted.
fn is_relative(path: &Path) -> bool {
    path.as_os_str() != "none" && path.is_relative()
}

/// The links to Redis; those that run already go on when nothing about them has changed.
fn connection(
    written: &Spanned<Redis>,
    loaded: &Loaded,
    running: Option<&Snapshot>,
) -> Result<Arc<RedisStore>, Issue> {
    let identity = identity(&written.value);
    if let Some((before, redis)) = running.and_then(|running| running.redis.as_ref())
        && *before == identity
    {
        return Ok(redis.clone());
    }
    let mut spec = written.value.clone();
    if let Some(ca) = &mut spec.ca {
        ca.value = loaded.base.join(&ca.value);
    }
    // The line with the URL may have the password in it.
    let wrong = |message: String| problem(Code::BAD_VALUE, &message, written.url.at).unshown();
    RedisStore::new(&spec).map(Arc::new).map_err(wrong)
}

/// Everything that links are made from. It has the password in it and is only compared.
fn identity(written: &Redis) -> String {
    format!(
        "{} {:?} {:?} {:?} {:?}",
        written.url.expose(),
        written.timeout,
        written.pool,
        written.prefix,
        written.ca
    )
}

fn sync(backend: &Backend) -> Duration {
    backend.sync.map_or(Duration::from_millis(100), |span| span.value.0)
}

/// Tells, for each limit, how far `fast` may exceed it: nobody should be surprised.
pub(super) fn tell_bound(document: &Document, plans: &Plans, issues: &mut Issues) {
    let backend = &document.defaults.limits_backend;
    if backend.value.store != StoreKind::Redis || backend.value.mode != Written::Fast {
        return;
    }
    let (sync, nodes) =
        (sync(&backend.value), u64::from(backend.value.nodes.map_or(2, |nodes| *nodes.value)));
    let tell = |name: &str, rule: &Rule| format!("{name}: {}", bound(rule, sync, nodes));
    let written = written_limits(document).map(|limit| {
        let LimitRule { rate: Rate { count, period }, burst, .. } = *limit;
        let rule = Rule::Rate { count, period, burst: burst.unwrap_or(count) };
        tell(&format!("{} per {}", limit.rate, limit.per), &rule)
    });
    let mut bounds: Vec<String> = plans.rules().map(|(name, rule)| tell(name, rule)).chain(written).collect();
    let mut seen = HashSet::new();
    bounds.retain(|bound| seen.insert(bound.clone()));
    let message = format!("with `mode: fast` and {nodes} nodes more may pass than the limits say");
    let issue = Issue::new(Code::FAST_BOUND, message).at(backend.at);
    issues.push(match bounds.is_empty() {
        true => issue,
        false => issue.note(format!("at most so many more: {}", bounds.join(", "))),
    });
}

/// The limits of `defaults`, APIs and routes.
fn written_limits(document: &Document) -> impl Iterator<Item = &LimitRule> {
    document
        .levels()
        .filter_map(|level| level.limits)
        .flat_map(|limits| &limits.value.0)
        .map(|limit| &limit.value)
}
