//! What a route does in the end: its `to:`.

pub mod fallback;
pub mod mirror;
mod proxy;
mod redirect;
mod respond;
mod split;
pub mod to;

pub use fallback::{Fallback, Resort};
pub use mirror::{Mirror, Place};
pub use proxy::{Arm, Hashed, Proxy};
pub use redirect::Redirect;
pub use respond::Respond;
pub use split::{ArmStatus, Shares, SplitStatus};

use crate::build::{Bind, Build};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Reply;
use crate::value::{Issues, Spanned};
use to::To;

/// What answers a request.
pub enum Action {
    /// An upstream.
    Proxy(Proxy),
    /// A fixed answer.
    Respond(Respond),
    /// A redirect.
    Redirect(Redirect),
}

impl Action {
    /// Resolves and compiles a `to:`.
    pub fn new(to: &Spanned<To>, bind: Bind<'_>, build: &Build, issues: &mut Issues) -> Option<Action> {
        match &to.value {
            To::Upstream(name) => {
                issues.take(Proxy::to_one(name, to.at, bind.params, build)).map(Action::Proxy)
            }
            To::Split(split) => Proxy::to_many(split, bind, build, issues).map(Action::Proxy),
            To::Respond(respond) => Respond::new(respond, to.at, bind, build, issues).map(Action::Respond),
            To::Redirect(redirect) => issues.take(Redirect::new(redirect, bind)).map(Action::Redirect),
        }
    }

    /// The answer, when it is made here.
    pub fn reply(&self, request: &RequestHead, x: &Exchange) -> Option<Reply> {
        match self {
            Action::Proxy(_) => None,
            Action::Respond(respond) => Some(respond.reply(request, x)),
            Action::Redirect(redirect) => Some(redirect.reply(request, x)),
        }
    }

    /// The upstreams, when it goes to any.
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Action::Proxy(proxy) => Some(proxy),
            Action::Respond(_) | Action::Redirect(_) => None,
        }
    }

    /// In a few words, for `routes` and `explain`.
    pub fn describe(&self) -> String {
        match self {
            Action::Proxy(proxy) => proxy.describe(),
            Action::Respond(respond) => format!("respond {}", respond.status()),
            Action::Redirect(redirect) => redirect.describe(),
        }
    }
}
