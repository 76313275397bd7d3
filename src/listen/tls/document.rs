//! TLS of a listener, as written.

use crate::value::{Spanned, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// TLS of a listener. Files are read again when they change; a pair that cannot be used leaves the one before in use.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate in PEM, the server's own first, those that vouch for it behind. Short for one entry of `certs`.
    pub cert: Option<Spanned<PathBuf>>,
    /// Its private key in PEM.
    pub key: Option<Spanned<PathBuf>>,
    /// Certificates. Which one a client is shown is decided by the name it asks for (SNI) and the names in the
    /// certificates, exact ones before wildcards; the first is for everybody else.
    #[serde(default)]
    pub certs: Vec<Spanned<CertificateFiles>>,
    /// The oldest version that is spoken: `1.2` (default) or `1.3`.
    #[serde(default)]
    pub min: Version,
    /// Certificates of clients. Default: none are asked for.
    pub client_cert: Option<Spanned<ClientCert>>,
}

/// Certificates of clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCert {
    /// `off` asks for none; with `optional` clients may show one, with `required` (default) they must. One that is shown must
    /// be good either way, else there is no connection.
    #[serde(default)]
    pub mode: ClientMode,
    /// CA certificates in PEM that vouch for clients.
    pub ca: Option<Spanned<PathBuf>>,
    /// What the upstream is told (RFC 9440): `client-cert` (default), `client-cert-chain` for the certificates behind it too,
    /// or `none`. Copies that clients send are always removed.
    #[serde(default)]
    pub forward: Forward,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientMode {
    /// They are not asked.
    Off,
    /// They may.
    Optional,
    /// They must.
    #[default]
    Required,
}

/// What the upstream is told of a client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Nothing.
    None,
    /// The certificate, in `Client-Cert`.
    #[default]
    ClientCert,
    /// The certificates behind it as well, in `Client-Cert-Chain`.
    ClientCertChain,
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate in PEM, the server's own first, those that vouch for it behind.
    pub cert: Spanned<PathBuf>,
    /// Its private key in PEM.
    pub key: Spanned<PathBuf>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Version::Tls12),
            "1.3" => Ok(Version::Tls13),
            // RFC 8996 has put an end to those before.
            _ => Err(format!("`{text}` is no version of TLS that is spoken\nhelp: write `1.2` or `1.3`")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Tls12 => "1.2",
            Version::Tls13 => "1.3",
        })
    }
}

text_value!(Version, "TlsVersion", pattern: r"^1\.[23]$", "`1.2` or `1.3`");
