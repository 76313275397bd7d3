//! A certificate with its key, read and checked.

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate with its key, ready to be shown to clients.
#[derive(Debug)]
pub struct Pair {
    /// What is shown, and what signs for it.
    pub certified: Arc<CertifiedKey>,
    /// Hosts it is for, in the form of [`host_key`](crate::value::host_key); wildcards begin with `*.`.
    pub names: Vec<Box<str>>,
    /// When it begins to be good, seconds since 1970.
    pub not_before: i64,
    /// When it stops being good, seconds since 1970.
    pub not_after: i64,
    /// What metrics and the log call it: its file.
    pub label: Box<str>,
}

/// Which of the two files is wrong, and how.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The certificate.
    Certificate(String),
    /// The key, or that it is another certificate's.
    Key(String),
}

impl Pair {
    /// Reads both from PEM.
    ///
    /// # Errors
    /// One of them cannot be used, or they do not belong together.
    pub fn parse(label: &str, cert: &[u8], key: &[u8], crypto: &CryptoProvider) -> Result<Pair, Broken> {
        let chain = chain(cert).map_err(Broken::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|cause| Broken::Key(no_key(&cause)))?;
        let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let (_, leaf) = X509Certificate::from_der(&leaf)
            .map_err(|_| Broken::Certificate("its first certificate cannot be read".to_owned()))?;
        let names = names(&leaf);
        let validity = leaf.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let certified = CertifiedKey::from_der(chain.clone(), key, crypto).map_err(|cause| match cause {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Broken::Key("it is not the key of this certificate".to_owned())
            }
            Error::InvalidCertificate(cause) => Broken::Certificate(cause.to_string()),
            cause => Broken::Key(cause.to_string()),
        })?;
        Ok(Pair { certified: Arc::new(certified), names, not_before, not_after, label: label.into() })
    }
}

/// All certificates of a file.
///
/// # Errors
/// There is none, or what is there is not PEM.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|cause| format!("it is not PEM: {cause}"))?;
    if chain.is_empty() { Err("it contains no certificate in PEM".to_owned()) } else { Ok(chain) }
}

fn no_key(cause: &pem::Error) -> String {
    match cause {
        pem::Error::NoItemsFound => "it contains no private key in PEM".to_owned(),
        cause => format!("it is not PEM: {cause}"),
    }
}

/// The hosts a certificate is for. A common name is none of them (RFC 9525 section 2).
fn names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = &alternative.value.general_names;
    names.iter().filter_map(host_name).map(String::into_boxed_str).collect()
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => Some(match ip(bytes)? {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }),
        _ => None,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio_rustls::rustls::crypto::ring::default_provider;

    /// A certificate of its own for these names, and its key, in PEM.
    pub(in super::super) fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// The same as a pair.
    pub(in super::super) fn pair(names: &[&str]) -> Pair {
        let (cert, key) = made(names);
        Pair::parse("made.pem", cert.as_bytes(), key.as_bytes(), &default_provider()).unwrap()
    }

    #[test]
    fn names_and_times_are_read() {
        let pair = pair(&["A.example", "*.b.example", "127.0.0.1", "::1"]);
        let names: Vec<&str> = pair.names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a.example", "*.b.example", "127.0.0.1", "[::1]"]);
        assert!(pair.not_before < pair.not_after);
    }

    #[test]
    fn what_is_wrong_is_told_of_the_right_file() {
        let ((cert, key), (_, other)) = (made(&["a"]), made(&["a"]));
        let parse = |cert: &str, key: &str| {
            Pair::parse("", cert.as_bytes(), key.as_bytes(), &default_provider()).unwrap_err()
        };
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let says = |broken: &Broken, word: &str| match broken {
            Broken::Certificate(why) => format!("cert {why}").contains(word),
            Broken::Key(why) => format!("key {why}").contains(word),
        };
        for (cert, key, word) in [
            (&*cert, &*other, "key it is not the key of this certificate"),
            ("", &*key, "cert it contains no certificate"),
            (&*cert, "", "key it contains no private key"),
            (&*cert, &*cert, "key it contains no private key"),
            (junk, &*key, "cert its first certificate cannot be read"),
        ] {
            let broken = parse(cert, key);
            assert!(says(&broken, word), "{broken:?}");
        }
    }
}
