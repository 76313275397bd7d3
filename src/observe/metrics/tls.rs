//! What TLS on the side of clients is counted with.

use super::Metrics;
use super::series::{Declare, Family};
use prometheus::{Error, Gauge, IntCounter};

/// Metrics of TLS listeners.
pub(super) struct TlsFamilies {
    handshakes: Family<IntCounter>,
    failures: Family<IntCounter>,
    not_after: Family<Gauge>,
    reloads: Family<IntCounter>,
}

impl TlsFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Result<Self, Error> {
        Ok(TlsFamilies {
            handshakes: to.counters(
                "tollgate_tls_handshakes_total",
                "TLS handshakes with clients that succeeded: full ones, and resumed ones that went on with a session.",
                &["listener", "kind"],
            )?,
            failures: to.counters(
                "tollgate_tls_handshake_failures_total",
                "TLS handshakes with clients that failed: by reason.",
                &["listener", "reason"],
            )?,
            not_after: to.float_gauges(
                "tollgate_tls_cert_not_after_seconds",
                "When a certificate in use stops being good, in seconds since 1970.",
                &["listener", "cert"],
            )?,
            reloads: to.counters(
                "tollgate_tls_reloads_total",
                "Changed files of certificates and keys that were read: ok, or failed where what was before stays in use.",
                &["listener", "result"],
            )?,
        })
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// It took too long.
    Timeout,
    /// The client went away.
    Closed,
    /// What the client sent is HTTP in cleartext.
    NotTls,
    /// No protocol that both speak (RFC 7301).
    NoProtocol,
    /// No version, cipher suite, signature or key exchange that both know.
    Incompatible,
    /// The client's certificate is missing or not good.
    ClientCertificate,
    /// The client refused: it does not trust the certificate, for example.
    Refused,
    /// What the client sent is not TLS as it should be.
    Invalid,
}

impl TlsFailure {
    const ALL: [TlsFailure; 8] = [
        TlsFailure::Timeout,
        TlsFailure::Closed,
        TlsFailure::NotTls,
        TlsFailure::NoProtocol,
        TlsFailure::Incompatible,
        TlsFailure::ClientCertificate,
        TlsFailure::Refused,
        TlsFailure::Invalid,
    ];

    fn word(self) -> &'static str {
        match self {
            TlsFailure::Timeout => "timeout",
            TlsFailure::Closed => "closed",
            TlsFailure::NotTls => "not_tls",
            TlsFailure::NoProtocol => "no_protocol",
            TlsFailure::Incompatible => "incompatible",
            TlsFailure::ClientCertificate => "client_certificate",
            TlsFailure::Refused => "refused",
            TlsFailure::Invalid => "invalid",
        }
    }
}

/// What a listener counts its handshakes with.
#[derive(Clone)]
pub struct TlsMetrics {
    full: IntCounter,
    resumed: IntCounter,
    failures: [IntCounter; TlsFailure::ALL.len()],
    reloaded: IntCounter,
    not_reloaded: IntCounter,
}

impl TlsMetrics {
    /// Counts a handshake that succeeded.
    pub fn accepted(&self, resumed: bool) {
        if resumed { self.resumed.inc() } else { self.full.inc() }
    }

    /// Counts one that failed.
    pub fn failed(&self, failure: TlsFailure) {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.inc();
        }
    }

    /// Counts changed files that were read.
    pub fn reloaded(&self, ok: bool) {
        if ok { self.reloaded.inc() } else { self.not_reloaded.inc() }
    }
}

impl Metrics {
    /// The TLS metrics of a listener; the same name gives the same series.
    pub fn tls(&self, listener: &str) -> TlsMetrics {
        let tls = &self.families.tls;
        TlsMetrics {
            full: tls.handshakes.series(&[listener, "full"]),
            resumed: tls.handshakes.series(&[listener, "resumed"]),
            failures: TlsFailure::ALL.map(|failure| tls.failures.series(&[listener, failure.word()])),
            reloaded: tls.reloads.series(&[listener, "ok"]),
            not_reloaded: tls.reloads.series(&[listener, "failed"]),
        }
    }

    /// Tells until when the certificates in use are good: listener, certificate, seconds since 1970. Others are forgotten.
    pub fn certificates(&self, all: &[(String, String, i64)]) {
        let not_after = &self.families.tls.not_after;
        not_after.retain(|labels| {
            all.iter().any(|(listener, cert, _)| matches!(labels, [l, c] if l == listener && c == cert))
        });
        for (listener, cert, seconds) in all {
            not_after.series(&[listener.as_str(), cert.as_str()]).set(*seconds as f64);
        }
    }
}
