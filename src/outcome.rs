//! From what the engine says went wrong to what a client is told: 502, 503 and 504 used exactly, and blame where it belongs.

use crate::grpc;
use crate::listen::framing::Flaw;
use crate::observe::metrics::Attempt;
use crate::reply::{Kind, Problem};
use crate::upstream::{Fault, PickError};
use crate::value::Trouble;
use h2::Reason;
use pingora::{Error, ErrorSource, ErrorType};
use std::time::Duration;

/// When to come again where all places are taken: they are free again soon, but nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// The kind of problem behind an error of the engine, which knows clients only.
pub fn kind(error: &Error) -> Kind {
    match error.esource() {
        ErrorSource::Downstream => flaw(error).map_or_else(|| downstream(error.etype()), Flaw::kind),
        _ => match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Kind::CLIENT_GONE,
            ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
            _ => Kind::INTERNAL,
        },
    }
}

/// What a client has sent that it should not, when that is what an error is about.
pub fn flaw(error: &Error) -> Option<Flaw> {
    let cause = error.root_cause().downcast_ref::<std::io::Error>()?;
    cause.get_ref()?.downcast_ref().copied()
}

fn downstream(error: &ErrorType) -> Kind {
    match error {
        ErrorType::ReadTimedout => Kind::CLIENT_TIMEOUT,
        ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
        _ => Kind::CLIENT_GONE,
    }
}

/// The problem of an answer that cannot be had.
pub fn fault(fault: Fault) -> Kind {
    match fault {
        Fault::Closed => Kind::UPSTREAM_CLOSED,
        Fault::Invalid(_) => Kind::UPSTREAM_INVALID,
        Fault::Length | Fault::Unsayable => Kind::BAD_REQUEST,
    }
}

/// The problem of an attempt that ended so; how the target has reset its stream, if it has, says more to clients of gRPC.
pub fn told(kind: Kind, reset: Option<Reason>) -> Problem {
    Problem { grpc: reset.map(grpc::status_of_reset), ..kind.into() }
}

/// How an attempt that ended so is counted; `None` when it was not the upstream that failed.
pub fn attempt(kind: Kind) -> Option<Attempt> {
    Some(match kind {
        Kind::CONNECT_TIMEOUT => Attempt::ConnectTimeout,
        Kind::CONNECT_FAILED => Attempt::ConnectFailed,
        Kind::TLS_FAILED => Attempt::TlsFailed,
        Kind::UPSTREAM_TIMEOUT => Attempt::Timeout,
        Kind::UPSTREAM_CLOSED | Kind::UPSTREAM_INVALID => Attempt::Broken,
        _ => return None,
    })
}

/// What went wrong with an attempt that brought no answer, for those who react to it.
pub fn trouble(attempt: Attempt) -> Option<Trouble> {
    Some(match attempt {
        Attempt::ConnectFailed | Attempt::ConnectTimeout | Attempt::TlsFailed => Trouble::Connect,
        Attempt::Broken => Trouble::Reset,
        Attempt::Timeout => Trouble::Timeout,
        Attempt::Ok | Attempt::ServerError | Attempt::Cancelled => return None,
    })
}

/// The problem of an upstream that has no target to give.
pub fn unpicked(why: PickError) -> Problem {
    match why {
        PickError::NoTargets => Kind::NO_TARGET.into(),
        PickError::NoneHealthy => Kind::NO_HEALTHY_TARGET.into(),
        PickError::Saturated => Problem::from(Kind::SATURATED).retry_after(SOON),
        PickError::Broken(after) => Problem::from(Kind::BREAKER_OPEN).retry_after(after),
    }
}
