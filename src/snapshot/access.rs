//! Who may call and how often, as far as it is the same for all routes: consumers, providers, guards, counters.

use super::unchanged::{Origin, Origins};
use super::{Shared, Snapshot};
use crate::auth::api_key::{ApiKeys, Key};
use crate::auth::basic::Basic;
use crate::auth::client_cert::ClientCerts;
use crate::auth::document::{self, Jwks as Place, Jwt as WrittenJwt, Provider as Written};
use crate::auth::forward::Forward;
use crate::auth::guard::Guard;
use crate::auth::introspection::Introspection;
use crate::auth::jwks::{self, Jwks, Schedule};
use crate::auth::jwt::{Jwt, JwtSpec, KeySource, Static};
use crate::auth::{Named, Provider};
use crate::build::{Access, problem, read_file, unknown};
use crate::config::Loaded;
use crate::config::document::Document;
use crate::consumer::{Consumer, Consumers};
use crate::listen::tls::document::ClientMode;
use crate::upstream::endpoint::Endpoint;
use crate::value::{At, Code, Issue, Issues, Name, Span, Spanned};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Largest CA bundle, and the most that is looked at of any file a provider names.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Clocks that differ by more are wrong, and nobody would want to make up for it.
const MOST_SKEW: Duration = Duration::from_secs(3600);

/// What identity needs beyond the step that asks for it.
pub(super) struct Identity {
    pub(super) access: Access,
    /// Keys that are fetched, by the provider's name.
    pub(super) fetched: Vec<(Arc<str>, Arc<Jwks>)>,
    /// What the providers were made from, by name.
    pub(super) origins: Vec<(Arc<str>, Origin)>,
}

/// Builds it; what is wrong is reported.
pub(super) fn build(
    loaded: &Loaded,
    shared: &Shared,
    running: Option<&Snapshot>,
    counters: Arc<crate::store::counters::Counters>,
    issues: &mut Issues,
) -> Identity {
    let document = &loaded.document;
    let (consumers, keys) = consumers(document, issues);
    let mut making = Making { loaded, shared, running, issues, consumers, keys, fetched: Vec::new() };
    let (mut providers, mut origins) = (Vec::new(), Vec::new());
    let all = Origins::new(loaded);
    for (name, written) in document.auth.iter() {
        if name.as_str() == "public" {
            let issue = Issue::new(Code::CONFLICT, "a provider cannot be called `public`").at(name.at);
            making.issues.push(issue.help("`auth: public` lets everybody in"));
        }
        let origin = all.of(name, written);
        // Made in any case: what is wrong with it is told at every reload.
        let made = making.provider(name, written);
        let made = making.issues.take(made);
        let called: Arc<str> = name.as_str().into();
        let named = made.map(|made| {
            let provider = origin.and_then(|origin| making.unchanged(&called, origin)).unwrap_or(made);
            let metrics = shared.metrics.provider(&called);
            Arc::new(Named { name: called.clone(), provider, metrics })
        });
        origins.extend(origin.map(|origin| (called, origin)));
        providers.push((name.value.clone(), named));
    }
    let mut forwards: Vec<_> = providers
        .iter()
        .filter_map(|(_, named)| named.as_ref())
        .flat_map(|named| named.provider.forwards().iter().cloned())
        .collect();
    forwards.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    forwards.dedup();
    let tags = document.consumers.iter().flat_map(|(_, consumer)| consumer.tags.0.iter().cloned()).collect();
    let access = Access {
        providers,
        consumers: making.consumers,
        tags,
        forwards: forwards.into(),
        guards: guards(document, running),
        counters,
    };
    Identity { access, fetched: making.fetched, origins }
}

/// Consumers by everything they are called, and all their keys.
fn consumers(document: &Document, issues: &mut Issues) -> (Arc<Consumers>, Vec<Key>) {
    let plans: Vec<&str> = document.plans.iter().map(|(name, _)| name.as_str()).collect();
    let mut known: Vec<(Arc<str>, Arc<Consumer>)> = Vec::new();
    let mut places: HashMap<Arc<str>, At> = HashMap::new();
    let mut keys = Vec::new();
    let mut seen: HashMap<[u8; 32], At> = HashMap::new();
    for (name, written) in document.consumers.iter() {
        let plan = written.plan.as_ref().and_then(|plan| {
            let number = plans.iter().position(|known| *known == plan.as_str());
            let missing = || unknown("plan", plan.as_str(), plan.at, &plans);
            issues.take(number.ok_or_else(missing))
        });
        let consumer = Arc::new(Consumer { name: name.as_str().into(), plan, tags: written.tags.0.clone() });
        let called = written.ids.0.iter().map(|id| (Arc::<str>::from(id.as_str()), id.at));
        for (id, at) in std::iter::once((consumer.name.clone(), name.at)).chain(called) {
            match places.insert(id.clone(), at) {
                Some(first) => issues.push(twice(&format!("two consumers are called `{id}`"), first, at)),
                None => known.push((id, consumer.clone())),
            }
        }
        for (number, key) in written.keys.0.iter().enumerate() {
            if let Some(first) = seen.insert(key.hash.0, key.at) {
                issues.push(twice("this key stands twice", first, key.at));
            }
            let expires = key.expires.map(crate::consumer::document::Day::start);
            if expires.is_some_and(|expires| expires <= crate::store::memory::now() / 1_000_000) {
                let message = format!("this key of consumer `{}` has expired", name.value);
                issues.push(Issue::new(Code::EXPIRED, message).at(key.at).help("remove it"));
            }
            let called = key.name.as_ref().map_or_else(|| format!("key {}", number + 1), Name::to_string);
            keys.push(Key { hash: key.hash.0, consumer: consumer.clone(), name: called.into(), expires });
        }
    }
    (Arc::new(Consumers::new(known)), keys)
}

fn twice(message: &str, first: At, again: At) -> Issue {
    Issue::new(Code::CONFLICT, message).at(first).label("first").and(again, "again")
}

struct Making<'a> {
    loaded: &'a Loaded,
    shared: &'a Shared,
    running: Option<&'a Snapshot>,
    issues: &'a mut Issues,
    consumers: Arc<Consumers>,
    keys: Vec<Key>,
    fetched: Vec<(Arc<str>, Arc<Jwks>)>,
}

impl Making<'_> {
    /// The running provider of this name, if it was made from the same; the keys it fetches go on with it.
    fn unchanged(&mut self, called: &Arc<str>, origin: Origin) -> Option<Arc<dyn Provider>> {
        let running = self.running?;
        if !running.origins.iter().any(|(name, of)| name == called && *of == origin) {
            return None;
        }
        let named = running.providers.iter().find(|named| named.name == *called)?;
        let fetched = running.fetched_keys.iter().find(|(name, _)| name == called);
        if let (Some((_, keys)), Some((_, made))) =
            (fetched, self.fetched.iter_mut().find(|(name, _)| name == called))
        {
            made.clone_from(keys);
        }
        Some(named.provider.clone())
    }

    fn provider(&mut self, name: &Spanned<Name>, written: &Written) -> Result<Arc<dyn Provider>, Issue> {
        let called: Arc<str> = name.as_str().into();
        Ok(match written {
            Written::Jwt(jwt) => Arc::new(self.jwt(called, name, jwt)?),
            Written::ApiKey(api_key) => Arc::new(ApiKeys::new(name.as_str(), api_key, self.keys.iter())),
            Written::Introspection(written) => Arc::new(self.introspection(&called, written)?),
            Written::Forward(forward) => Arc::new(self.forward(&called, forward)?),
            Written::ClientCert(written) => {
                self.warn_of_nobody_asking(name);
                Arc::new(ClientCerts::new(&called, written, &self.consumers))
            }
            Written::Basic(basic) => {
                let made = Basic::new(&called, basic, &self.consumers);
                Arc::new(made.map_err(|message| problem(Code::BAD_VALUE, &message, basic.users.at))?)
            }
        })
    }

    fn jwt(&mut self, called: Arc<str>, name: &Spanned<Name>, written: &WrittenJwt) -> Result<Jwt, Issue> {
        let places = [written.jwks.is_some(), written.pem.is_some(), written.secret.is_some()];
        if places.iter().filter(|place| **place).count() > 1 {
            let message = format!("provider `{}` has more than one place for keys", name.value);
            let issue = Issue::new(Code::CONFLICT, message).at(name.at);
            return Err(issue.help("write one of `jwks`, `pem` and `secret`"));
        }
        self.warn_of_late_tokens(written);
        let spec = JwtSpec::new(written)?;
        let keys: Arc<dyn KeySource> = match Static::read(written, &self.loaded.base)? {
            Some(keys) => Arc::new(keys),
            None => {
                let keys = Arc::new(self.jwks(written)?);
                let at = written.jwks.as_ref().map_or(written.issuer.at, |jwks| jwks.at);
                self.warn_of_clear_text(keys.is_clear_text(), keys.url(), at);
                let running = self.running.into_iter().flat_map(|running| &running.fetched_keys);
                if let Some((_, previous)) = running.into_iter().find(|(other, _)| *other == called) {
                    keys.inherit(previous);
                }
                self.fetched.push((called.clone(), keys.clone()));
                keys
            }
        };
        Ok(Jwt::new(called, spec, self.consumers.clone(), Box::new(keys)))
    }

    fn jwks(&self, written: &WrittenJwt) -> Result<Jwks, Issue> {
        let (place, at) = match &written.jwks {
            Some(Spanned { value: Place::Url(url), at }) => (jwks::Place::Url(url.clone()), *at),
            _ => (jwks::Place::Issuer(written.issuer.value.clone()), written.issuer.at),
        };
        let default = Schedule::default();
        let schedule = Schedule {
            refresh: written.refresh.map_or(default.refresh, |span| span.value.0),
            cooldown: written.cooldown.map_or(default.cooldown, |span| span.0),
            stale_max: written.stale_max.map_or(default.stale_max, |span| span.0),
            timeout: written.timeout.map_or(default.timeout, |span| span.0),
        };
        if let Some(refresh) = written.refresh.filter(|_| schedule.refresh * 2 > schedule.stale_max) {
            let message = format!(
                "keys that are fetched every {} would be too old in between: `stale_max` is {}",
                refresh.value,
                Span(schedule.stale_max)
            );
            let issue = Issue::new(Code::CONFLICT, message).at(refresh.at);
            return Err(issue.help("make `stale_max` at least twice as long"));
        }
        let ca = self.ca(written.ca.as_ref())?;
        let Shared { client, resolver, .. } = self.shared;
        Jwks::new(place, schedule, ca, client, resolver)
            .map_err(|message| problem(Code::BAD_VALUE, &message, at))
    }

    /// Warns where no certificate can ever be shown.
    fn warn_of_nobody_asking(&mut self, name: &Spanned<Name>) {
        let asks = |listener: &crate::config::document::Listener| {
            let clients = listener.tls.as_ref().and_then(|tls| tls.value.client_cert.as_ref());
            clients.is_some_and(|clients| clients.value.mode != ClientMode::Off)
        };
        if !self.loaded.document.listeners.iter().any(|(_, listener)| asks(listener)) {
            let message =
                format!("no listener asks for the certificates that provider `{}` needs", name.value);
            let issue = Issue::new(Code::UNUSED, message).at(name.at);
            self.issues.push(issue.help("add `tls: { client_cert: { ca: clients.pem } }` to a listener"));
        }
    }

    /// Warns where secrets would travel in the clear.
    /// Every token is good for so much longer than it says.
    fn warn_of_late_tokens(&mut self, written: &WrittenJwt) {
        if let Some(skew) = written.skew.filter(|skew| skew.value.0 > MOST_SKEW) {
            let message = format!("tokens are accepted for {} after they have expired", skew.value);
            let issue = Issue::new(Code::UNLIKELY, message).at(skew.at);
            self.issues
                .push(issue.help("clocks that are kept right differ by seconds: `30s` is the default"));
        }
    }

    fn warn_of_clear_text(&mut self, is_clear: bool, url: &str, at: At) {
        if is_clear {
            let message =
                format!("`{url}` is not encrypted: what is exchanged with it can be read and changed");
            self.issues.push(Issue::new(Code::CLEAR_TEXT, message).at(at).help("write `https://`"));
        }
    }

    fn introspection(
        &mut self,
        called: &Arc<str>,
        written: &document::Introspection,
    ) -> Result<Introspection, Issue> {
        let endpoint = self.endpoint(&written.url, written.ca.as_ref())?;
        self.warn_of_clear_text(endpoint.is_clear_text(), &written.url.value, written.url.at);
        Introspection::new(called, written, endpoint, &self.consumers)
            .map_err(|message: String| problem(Code::BAD_VALUE, &message, written.url.at))
    }

    fn forward(&mut self, called: &Arc<str>, written: &document::Forward) -> Result<Forward, Issue> {
        let endpoint = self.endpoint(&written.url, written.ca.as_ref())?;
        self.warn_of_clear_text(endpoint.is_clear_text(), &written.url.value, written.url.at);
        Ok(Forward::new(called, written, endpoint, &self.consumers))
    }

    fn endpoint(&self, url: &Spanned<String>, ca: Option<&Spanned<PathBuf>>) -> Result<Endpoint, Issue> {
        let Shared { client, resolver, .. } = self.shared;
        Endpoint::new(&url.value, self.ca(ca)?, client, resolver)
            .map_err(|message| problem(Code::BAD_VALUE, &message, url.at))
    }

    fn ca(&self, ca: Option<&Spanned<PathBuf>>) -> Result<Option<Arc<[u8]>>, Issue> {
        ca.map(|ca| read_file(&self.loaded.base, ca, MAX_FILE).map(Into::into)).transpose()
    }
}

/// The guards by listener; one whose rules stay the same goes on.
fn guards(document: &Document, running: Option<&Snapshot>) -> Arc<[Option<Arc<Guard>>]> {
    let running = |name: &Name| {
        let running = running?;
        let number = running.listeners.iter().position(|listener| listener.name == *name)?;
        running.guards.get(number)?.clone()
    };
    let guard = |(name, listener): (&Spanned<Name>, &crate::config::document::Listener)| {
        let made = Guard::from(listener.limits.guard.as_ref()?);
        Some(
            running(&name.value)
                .filter(|before| before.has_rules_of(&made))
                .unwrap_or_else(|| Arc::new(made)),
        )
    };
    document.listeners.iter().map(|(name, listener)| guard((name, listener))).collect()
}
