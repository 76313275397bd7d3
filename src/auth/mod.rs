//! Who may call: providers of identity, each proving one kind of credential.
//!
//! A provider is made once from the configuration and asked by the step [`crate::filters`]`::auth` for every request of
//! the routes that name it. What can be decided at once is; only a provider that must ask somebody else gives a future.

pub mod document;
pub mod api_key;
pub mod claims;
pub mod credential;
pub mod jwt;
mod generations;
pub mod flight;
pub mod guard;
pub mod jwks;
pub mod introspection;
pub mod forward;
pub mod basic;
pub mod client_cert;
#[cfg(test)]
mod stand_in;

use crate::consumer::Identity;
use crate::exchange::{Exchange, RequestHead};
use crate::observe::metrics::AuthMetrics;
use crate::reply::{Kind, Reply};
use crate::tasks::Task;
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::sync::Arc;

pub use crate::tasks::Waiting;

/// A provider and the name that `auth` refers to it by.
pub struct Named {
    /// The name.
    pub name: Arc<str>,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// What its decisions are counted with.
    pub metrics: AuthMetrics,
}

/// Proves one kind of credential.
pub trait Provider: Send + Sync {
    /// Looks for a credential in the request and proves it. What is promised for later must not need the exchange.
    fn check<'a>(&'a self, request: &'a RequestHead, x: &Exchange) -> Check<'a>;

    /// Header fields that only this provider may send upstream: what the client sent under these names is removed, on
    /// every route.
    fn forwards(&self) -> &[HeaderName] {
        &[]
    }

    /// Removes the credential from what goes upstream, where it is to be hidden.
    fn hide(&self, _head: &mut RequestHead) {}

    /// The challenge of a 401 without a credential (RFC 9110 section 11.6.1), such as `Bearer`.
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// What must run in the background.
    fn tasks(&self) -> Vec<Arc<dyn Task>> {
        Vec::new()
    }

    /// How many credentials it remembers, so that it need not prove them again; some may have run out.
    fn remembered(&self) -> usize {
        0
    }

    /// Waits until requests can be checked, but not longer than the time given; `true` when they can.
    fn warm(&self, _within: std::time::Duration) -> Waiting<'_, bool> {
        Box::pin(async { true })
    }
}

/// The answer of a provider, or the promise of one.
pub enum Check<'a> {
    /// Known at once.
    Now(Verdict),
    /// Somebody else must be asked.
    Later(Waiting<'a, Verdict>),
}

/// What a provider finds.
#[derive(Debug)]
pub enum Verdict {
    /// The request has no credential of this kind.
    Absent,
    /// Proven.
    Accepted(Arc<Identity>),
    /// There is a credential, and it is not good.
    Refused(Refusal),
    /// It cannot be known now, because of somebody else: 503, never 401. The words are for the log.
    Unavailable(&'static str),
    /// Somebody else has answered the request: forward auth.
    Answered(Box<Reply>),
}

/// Why a credential is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told: 401, 403 or 400.
    pub kind: Kind,
    /// What went wrong, for the log: `expired`, `signature`, `audience` … From a closed set, never what the client sent.
    pub why: &'static str,
    /// `error` of the challenge (RFC 6750 section 3.1), such as `invalid_token`.
    pub error: Option<&'static str>,
    /// Sentence for the client; never secrets, never what the client sent.
    pub detail: Cow<'static, str>,
    /// `scope` of the challenge: what would have been needed.
    pub scope: Option<String>,
}
