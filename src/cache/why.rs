//! Why the cache had no part in a request, or keeps nothing of an answer.

use std::fmt;

/// A reason, as logs and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Another method than GET and HEAD.
    Method,
    /// The request has a body, which the key does not.
    Body,
    /// The request asks for another protocol.
    Upgrade,
    /// The client asks that nothing be stored (RFC 9111 section 5.2.1.5).
    RequestNoStore,
    /// An answer to HEAD has no body to keep.
    Head,
    /// The origin says `no-store` (section 5.2.2.5).
    NoStore,
    /// The origin says `private` (section 5.2.2.7).
    Private,
    /// The request was authorized, and nobody says that others may get the answer, too (section 3.5).
    Authorization,
    /// `Vary` names what no request can be compared by (section 4.1).
    VaryStar,
    /// `Vary` names a field that steps of the gateway have written.
    VaryOfOurs,
    /// The answer has `Set-Cookie`.
    SetCookie,
    /// A part of a representation, or an answer to a condition.
    Partial,
    /// A status of which this cache does not know what it means (section 5.2.2.3).
    Status,
    /// Nothing says how long it is fresh.
    NoFreshness,
    /// It is stale at once, and nothing could validate it.
    Stale,
    /// The body is larger than what is kept.
    TooLarge,
    /// A 304 that is about another representation than the stored one (section 4.3.4).
    Mismatch,
}

impl Why {
    /// Whether the request is the reason, or what the gateway made of it: another one for the same address may fare better.
    pub const fn is_of_request(self) -> bool {
        matches!(
            self,
            Why::Method
                | Why::Body
                | Why::Upgrade
                | Why::RequestNoStore
                | Why::Head
                | Why::Authorization
                | Why::VaryOfOurs
                | Why::Partial
        )
    }

    /// Every reason.
    pub const ALL: [Why; 17] = [
        Why::Method,
        Why::Body,
        Why::Upgrade,
        Why::RequestNoStore,
        Why::Head,
        Why::NoStore,
        Why::Private,
        Why::Authorization,
        Why::VaryStar,
        Why::VaryOfOurs,
        Why::SetCookie,
        Why::Partial,
        Why::Status,
        Why::NoFreshness,
        Why::Stale,
        Why::TooLarge,
        Why::Mismatch,
    ];

    /// Its name: one token, also for `detail` of `Cache-Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Method => "method",
            Why::Body => "body",
            Why::Upgrade => "upgrade",
            Why::RequestNoStore => "request_no_store",
            Why::Head => "head",
            Why::NoStore => "no_store",
            Why::Private => "private",
            Why::Authorization => "authorization",
            Why::VaryStar => "vary_star",
            Why::VaryOfOurs => "vary_of_ours",
            Why::SetCookie => "set_cookie",
            Why::Partial => "partial",
            Why::Status => "status",
            Why::NoFreshness => "no_freshness",
            Why::Stale => "stale",
            Why::TooLarge => "too_large",
            Why::Mismatch => "mismatch",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
