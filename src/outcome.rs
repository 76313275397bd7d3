//! From what the engine says went wrong to what a client is told: 502, 503 and 504 used exactly, and blame where it belongs.

use crate::observe::metrics::Attempt;
use crate::reply::Kind;
use crate::upstream::{Fault, PickError};
use pingora::{Error, ErrorSource, ErrorType};

/// What the engine calls a chunk size that is none, and a body that ends before its length.
const INVALID_CHUNK: ErrorType = ErrorType::new("InvalidChunk");
const PREMATURE_BODY_END: ErrorType = ErrorType::new("PrematureBodyEnd");

/// The kind of problem behind an error of the engine. `request_done`: whether the client has sent its whole request.
pub fn kind(error: &Error, request_done: bool) -> Kind {
    match error.esource() {
        ErrorSource::Downstream => downstream(error.etype()),
        // An upstream cannot answer what it has not got: the silence is the client's.
        ErrorSource::Upstream if *error.etype() == ErrorType::ReadTimedout && !request_done => {
            Kind::CLIENT_TIMEOUT
        }
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Kind::CLIENT_GONE,
            ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
            other if upstream(other) != Kind::UPSTREAM_INVALID => upstream(other),
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

fn upstream(error: &ErrorType) -> Kind {
    match error {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Kind::CONNECT_TIMEOUT,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Kind::UPSTREAM_TIMEOUT,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError
        | ErrorType::BindError => Kind::CONNECT_FAILED,
        ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::TLSWantX509Lookup => Kind::TLS_FAILED,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Kind::UPSTREAM_CLOSED,
        other if *other == PREMATURE_BODY_END => Kind::UPSTREAM_CLOSED,
        _ => Kind::UPSTREAM_INVALID,
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
