//! What a component may ask for while it is being made.

use crate::auth::Named;
use crate::auth::guard::Guard;
use crate::consumer::{Consumer, Consumers};
use crate::observe::metrics::Metrics;
use crate::store::counters::Counters;
use crate::upstream::Upstream;
use crate::value::{At, Code, Issue, Key, Name, Spanned, Template};
use http::{HeaderName, HeaderValue};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What names refer to in the snapshot being built, and where files are.
pub struct Build {
    upstreams: HashMap<Name, Entry>,
    failed: HashMap<Name, Issue>,
    access: Access,
    used_providers: RefCell<HashSet<Name>>,
    base: PathBuf,
    metrics: Arc<Metrics>,
    /// What the running snapshot keeps, and what this one will.
    before: Option<Kept>,
    kept: RefCell<Kept>,
}

/// State that outlives a reload, by what it belongs to.
#[derive(Clone, Default)]
pub struct Kept(HashMap<String, Arc<dyn Any + Send + Sync>>);

/// Who may call and how often, as far as it is the same for all routes.
pub struct Access {
    /// Providers; `None` for one that could not be made, which has been reported.
    pub providers: Vec<(Name, Option<Arc<Named>>)>,
    /// Consumers.
    pub consumers: Arc<Consumers>,
    /// All tags that a consumer has.
    pub tags: Vec<Name>,
    /// Header fields that only providers may send upstream.
    pub forwards: Arc<[HeaderName]>,
    /// What guards each listener against guessing.
    pub guards: Arc<[Option<Arc<Guard>>]>,
    /// What limits are counted with.
    pub counters: Arc<Counters>,
}

struct Entry {
    upstream: Arc<Upstream>,
    key: Option<Spanned<Key>>,
    used: Cell<bool>,
}

impl Build {
    /// Nothing yet; relative paths begin at `base`, and `before` is what the running snapshot keeps.
    pub fn new(base: &Path, metrics: &Arc<Metrics>, access: Access, before: Option<&Kept>) -> Self {
        Build {
            upstreams: HashMap::new(),
            failed: HashMap::new(),
            access,
            used_providers: RefCell::default(),
            base: base.to_owned(),
            metrics: metrics.clone(),
            before: before.cloned(),
            kept: RefCell::default(),
        }
    }

    /// State that outlives a reload: what the running snapshot keeps under this key, if it still `fits`, else what is made
    /// now.
    pub fn keep<T: Any + Send + Sync>(
        &self,
        key: &str,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let before = self.before.as_ref().and_then(|before| before.0.get(key)).cloned();
        let before = before.and_then(|before| before.downcast::<T>().ok()).filter(|before| fits(before));
        let state = before.unwrap_or_else(|| Arc::new(make()));
        self.kept.borrow_mut().0.insert(key.to_owned(), state.clone());
        state
    }

    /// All that was asked for with [`Build::keep`].
    pub fn kept(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// Where components get the handles that they count with.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes an upstream known; `key` is what its requests are hashed by.
    pub fn add(&mut self, upstream: Arc<Upstream>, key: Option<Spanned<Key>>) {
        self.upstreams.insert(upstream.name().clone(), Entry { upstream, key, used: Cell::new(false) });
    }

    /// Remembers why an upstream could not be made, so that those who ask for it are not told that it is not defined.
    pub fn add_failed(&mut self, name: &Name, why: Issue) {
        self.failed.insert(name.clone(), why);
    }

    /// An upstream by name, and what its requests are hashed by.
    ///
    /// # Errors
    /// There is none of this name; the finding proposes the nearest. Or it could not be made; the finding is the same as
    /// the one already reported, and equal findings are told once.
    pub fn upstream(&self, name: &Name, at: At) -> Result<(Arc<Upstream>, Option<&Spanned<Key>>), Issue> {
        if let Some(entry) = self.upstreams.get(name) {
            entry.used.set(true);
            return Ok((entry.upstream.clone(), entry.key.as_ref()));
        }
        if let Some(why) = self.failed.get(name) {
            return Err(why.clone());
        }
        let mut known: Vec<_> = self.upstreams.keys().map(Name::as_str).collect();
        known.sort_unstable();
        Err(unknown("upstream", name.as_str(), at, &known))
    }

    /// Whether an upstream was asked for.
    pub fn is_used(&self, name: &Name) -> bool {
        self.upstreams.get(name).is_some_and(|entry| entry.used.get())
    }

    /// A provider by name.
    ///
    /// # Errors
    /// There is none of this name; the finding proposes the nearest. `Ok(None)` when it could not be made.
    pub fn provider(&self, name: &Name, at: At) -> Result<Option<Arc<Named>>, Issue> {
        self.used_providers.borrow_mut().insert(name.clone());
        let mut providers = self.access.providers.iter();
        match providers.find(|(other, _)| other == name) {
            Some((_, provider)) => Ok(provider.clone()),
            None => {
                let known: Vec<_> = self.access.providers.iter().map(|(name, _)| name.as_str()).collect();
                Err(unknown("auth provider", name.as_str(), at, &known))
            }
        }
    }

    /// Whether a provider was asked for.
    pub fn is_provider_used(&self, name: &Name) -> bool {
        self.used_providers.borrow().contains(name)
    }

    /// A consumer by name.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn consumer(&self, name: &Name, at: At) -> Result<Arc<Consumer>, Issue> {
        let consumer = self.access.consumers.named(name.as_str());
        consumer.filter(|consumer| *consumer.name == *name.as_str()).cloned().ok_or_else(|| {
            let mut known: Vec<_> = self.access.consumers.names().collect();
            known.sort_unstable();
            unknown("consumer", name.as_str(), at, &known)
        })
    }

    /// Whether a consumer has this tag.
    pub fn has_tag(&self, tag: &Name) -> bool {
        self.access.tags.contains(tag)
    }

    /// Header fields that only providers may send upstream.
    pub fn forwards(&self) -> &Arc<[HeaderName]> {
        &self.access.forwards
    }

    /// What guards each listener against guessing.
    pub fn guards(&self) -> &Arc<[Option<Arc<Guard>>]> {
        &self.access.guards
    }

    /// What limits are counted with.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.access.counters
    }

    /// The content of a file that the configuration names.
    ///
    /// # Errors
    /// It cannot be read, or is larger than `max` bytes.
    pub fn file(&self, path: &Spanned<PathBuf>, max: u64) -> Result<Vec<u8>, Issue> {
        read_file(&self.base, path, max)
    }
}

/// The content of a file that the configuration names; relative paths begin at `base`.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger than `max` bytes.
pub fn read_file(base: &Path, path: &Spanned<PathBuf>, max: u64) -> Result<Vec<u8>, Issue> {
    let unreadable = |why: String| {
        Issue::new(Code::UNREADABLE, format!("`{}` cannot be read: {why}", path.value.display())).at(path.at)
    };
    let place = base.join(&path.value);
    // A pipe or a device could make the start hang.
    if !std::fs::metadata(&place).map_err(|error| unreadable(error.to_string()))?.is_file() {
        return Err(unreadable("it is not a regular file".to_owned()));
    }
    let file = std::fs::File::open(place).map_err(|error| unreadable(error.to_string()))?;
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content).map_err(|error| unreadable(error.to_string()))?;
    if content.len() as u64 > max {
        return Err(unreadable(format!("it is larger than {}", crate::value::ByteSize(max))));
    }
    Ok(content)
}

/// The finding that a name refers to nothing.
pub fn unknown(kind: &str, name: &str, at: At, known: &[&str]) -> Issue {
    let mut issue = Issue::new(Code::UNKNOWN_REFERENCE, format!("{kind} `{name}` is not defined")).at(at);
    if let Some(near) = nearest(name, known.iter().copied()) {
        issue = issue.label(format!("did you mean `{near}`?"));
    }
    match known {
        [] => issue.note(format!("no {kind} is defined")),
        known => issue.note(format!("defined: {}", known.join(", "))),
    }
}

/// The word most like another, if one is like it at all.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What templates of one route are bound to.
#[derive(Clone, Copy)]
pub struct Bind<'a> {
    /// Name of the API.
    pub api: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Path parameters in order.
    pub params: &'a [&'a str],
}

impl Bind<'_> {
    /// Binds a template.
    ///
    /// # Errors
    /// It names a path parameter that the route does not have.
    pub fn template(&self, template: &Spanned<Template>) -> Result<Template, Issue> {
        template
            .value
            .bind(self.api, self.route, self.params)
            .map_err(|message| problem(Code::BAD_TEMPLATE, &message, template.at))
    }

    /// Binds a template that becomes a field value; a constant is checked and made once.
    ///
    /// # Errors
    /// As [`Bind::template`]; or the constant cannot be a field value.
    pub fn value(&self, template: &Spanned<Template>) -> Result<Value, Issue> {
        let bound = self.template(template)?;
        let Some(constant) = bound.constant() else {
            return Ok(Value::Template(bound));
        };
        let value = HeaderValue::from_str(constant).map_err(|_| {
            let message = "a header value cannot contain line breaks or control characters";
            Issue::new(Code::BAD_VALUE, message).at(template.at)
        })?;
        Ok(Value::Constant(value))
    }
}

/// A finding from a message that may carry its help behind `"\nhelp: "`.
pub fn problem(code: Code, message: &str, at: At) -> Issue {
    match message.split_once("\nhelp: ") {
        Some((message, help)) => Issue::new(code, message).at(at).help(help),
        None => Issue::new(code, message).at(at),
    }
}

/// A field value: made once, or filled in for each request.
#[derive(Clone, Debug)]
pub enum Value {
    /// Always the same.
    Constant(HeaderValue),
    /// Filled in.
    Template(Template),
}

impl Value {
    /// The value for this request; `None` when it cannot be a field value.
    pub fn for_request(
        &self,
        request: &crate::exchange::RequestHead,
        x: &crate::exchange::Exchange,
    ) -> Option<HeaderValue> {
        match self {
            Value::Constant(value) => Some(value.clone()),
            Value::Template(template) => x.render_value(template, request),
        }
    }
}
