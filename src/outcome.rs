//! From what the engine says went wrong to what a client is told: 502, 503 and 504 used exactly, and blame where it belongs.

use crate::observe::metrics::Attempt;
use crate::reply::Kind;
use crate::upstream::{Fault, PickError};
use pingora::{Error, ErrorSource, ErrorType};

/// What the engine calls a chunk size that is none.
const INVALID_CHUNK: ErrorType = ErrorType::new("InvalidChunk");

/// The kind of problem behind an error of the engine, which knows clients only.
pub fn kind(error: &Error) -> Kind {
    match error.esource() {
        ErrorSource::Downstream => downstream(error.etype()),
        _ => match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Kind::CLIENT_GONE,
            ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
            _ => Kind::INTERNAL,
        },
    }
}

fn downstream(error: &ErrorType) -> Kind {
    match error {
        ErrorType::ReadTimedout => Kind::CLIENT_TIMEOUT,
        ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
        other if *other == INVALID_CHUNK => Kind::BAD_REQUEST,
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

/// The problem of an upstream that has no target to give.
pub fn unpicked(why: PickError) -> Kind {
    match why {
        PickError::NoTargets => Kind::NO_TARGET,
        PickError::NoneHealthy => Kind::NO_HEALTHY_TARGET,
        PickError::Saturated => Kind::SATURATED,
    }
}
