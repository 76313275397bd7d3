//! What comes before a client's first request, and is counted: PROXY protocol and TLS.

use super::Metrics;
use super::series::{Declare, Family};
use prometheus::{Error, Gauge, IntCounter};

/// Metrics of connections that begin.
pub(super) struct TlsFamilies {
    handshakes: Family<IntCounter>,
    failures: Family<IntCounter>,
    not_after: Family<Gauge>,
    reloads: Family<IntCounter>,
    proxy: Family<IntCounter>,
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
            proxy: to.counters(
                "tollgate_proxy_protocol_failures_total",
                "Connections from `proxy_protocol.from` that were closed for want of a good header: by reason.",
                &["listener", "reason"],
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

/// Why there is no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFailure {
    /// Something else came.
    Missing,
    /// It is not as it should be.
    Malformed,
    /// The connection ended before.
    Closed,
    /// It took too long.
    Timeout,
}

/// What a listener counts connections with that lack a header of the PROXY protocol.
#[derive(Clone)]
pub struct ProxyMetrics([IntCounter; 4]);

impl ProxyMetrics {
    /// Counts one.
    pub fn failed(&self, failure: ProxyFailure) {
        if let Some(counter) = self.0.get(failure as usize) {
            counter.inc();
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
    /// Makes one series of each, for the reference page.
    pub(crate) fn touch_tls(&self) {
        self.tls("listener").accepted(true);
        self.proxy_protocol("listener").failed(ProxyFailure::Missing);
        self.certificates(&[("listener".to_owned(), "cert".to_owned(), 0)]);
    }

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

    /// The PROXY protocol's metrics of a listener; the same name gives the same series.
    pub fn proxy_protocol(&self, listener: &str) -> ProxyMetrics {
        let reasons = ["missing", "malformed", "closed", "timeout"];
        ProxyMetrics(reasons.map(|reason| self.families.tls.proxy.series(&[listener, reason])))
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
