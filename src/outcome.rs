//! From what the engine says went wrong to what a client is told: 502, 503 and 504 used exactly.

use crate::observe::metrics::Attempt;
use crate::reply::{Kind, Problem};
use crate::upstream::PickError;
use pingora::{Error, ErrorSource, ErrorType};

/// The problem behind an error of the engine.
pub fn problem(error: &Error) -> Problem {
    match error.esource() {
        ErrorSource::Downstream => downstream(error.etype()),
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Kind::CLIENT_GONE,
            ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
            other if upstream(other) != Kind::UPSTREAM_INVALID => upstream(other),
            _ => Kind::INTERNAL,
        },
    }
    .into()
}

fn downstream(error: &ErrorType) -> Kind {
    match error {
        ErrorType::ReadTimedout => Kind::CLIENT_TIMEOUT,
        ErrorType::InvalidHTTPHeader => Kind::BAD_REQUEST,
        ErrorType::HTTPStatus(413) => Kind::BODY_TOO_LARGE,
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
        _ => Kind::UPSTREAM_INVALID,
    }
}

/// The problem of an upstream that has no target to give.
pub fn unpicked(why: PickError) -> Kind {
    match why {
        PickError::NoTargets => Kind::NO_TARGET,
        PickError::NoneHealthy => Kind::NO_HEALTHY_TARGET,
        PickError::Saturated => Kind::SATURATED,
    }
}

/// How an attempt that ended with this error is counted.
pub fn attempt(error: &Error) -> Attempt {
    match upstream(error.etype()) {
        Kind::CONNECT_TIMEOUT => Attempt::ConnectTimeout,
        Kind::CONNECT_FAILED => Attempt::ConnectFailed,
        Kind::TLS_FAILED => Attempt::TlsFailed,
        Kind::UPSTREAM_TIMEOUT => Attempt::Timeout,
        Kind::CLIENT_GONE => Attempt::Cancelled,
        _ => Attempt::Broken,
    }
}
