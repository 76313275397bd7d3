//! Certificates of clients: who vouches for them, and what they say.

use crate::exchange::ClientCertificate;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use std::fmt::Write;
use std::sync::Arc;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::document::{ClientMode, Forward};

/// What checks the certificates of clients against those of a CA bundle.
///
/// # Errors
/// The bundle has none that can be used; in words of which the file is the subject.
pub(super) fn verifier(
    bundle: &[u8],
    mode: ClientMode,
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in super::pair::chain(bundle)? {
        roots.add(certificate).map_err(|cause| format!("a certificate in it cannot be used: {cause}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto);
    let builder = match mode {
        ClientMode::Optional => builder.allow_unauthenticated(),
        ClientMode::Off | ClientMode::Required => builder,
    };
    builder.build().map_err(|cause| cause.to_string())
}

/// What a certificate that has been verified says; `None` when it cannot be read after all.
pub(super) fn describe(chain: &[CertificateDer<'_>], forward: Forward) -> Option<ClientCertificate> {
    let (leaf, others) = chain.split_first()?;
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut described = ClientCertificate {
        fingerprint: fingerprint(leaf).into(),
        subject: distinguished_name(certificate.subject()).into(),
        common_name: common_name(certificate.subject()).map(Box::from),
        dns: Vec::new(),
        uris: Vec::new(),
        emails: Vec::new(),
        not_after: certificate.validity().not_after.timestamp(),
        header: (forward != Forward::None).then(|| binary(&[leaf.as_ref()])).flatten(),
        chain_header: (forward == Forward::ClientCertChain)
            .then(|| binary(&others.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
            .flatten(),
    };
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(name) => described.dns.push((*name).into()),
                GeneralName::URI(name) => described.uris.push((*name).into()),
                GeneralName::RFC822Name(name) => described.emails.push((*name).into()),
                _ => {}
            }
        }
    }
    Some(described)
}

/// A list of byte sequences (RFC 9440 section 2; RFC 9651 section 3.3.5); `None` for an empty one.
fn binary(items: &[&[u8]]) -> Option<HeaderValue> {
    let items: Vec<String> = items.iter().map(|item| format!(":{}:", STANDARD.encode(item))).collect();
    HeaderValue::try_from(items.join(", ")).ok().filter(|value| !value.is_empty())
}

/// `sha256:` and hexadecimal digits.
fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in digest(&SHA256, certificate).as_ref() {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().last()?.as_str().ok()
}

/// The name as RFC 4514 writes it, the most special part first: `CN=app,O=Example`.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (number, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if number == 0 { ',' } else { '+' });
            }
            let oid = attribute.attr_type().to_id_string();
            match (short_name(&oid), attribute.as_str()) {
                (Some(short), Ok(value)) => {
                    text.extend([short, "="]);
                    escape(value, &mut text);
                }
                // Without a name of its own, a value is written as it is encoded.
                _ => {
                    text.extend([oid.as_str(), "=#"]);
                    for byte in attribute.as_slice() {
                        let _ = write!(text, "{byte:02x}");
                    }
                }
            }
        }
    }
    text
}

/// The names of RFC 4514 section 3.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

/// RFC 4514 section 2.4: what would be read as part of the notation gets a backslash.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        let at_an_end = (place == 0 && matches!(c, ' ' | '#')) || (place == last && c == ' ');
        match c {
            '\0'..='\x1f' | '\x7f' => drop(write!(text, "\\{:02x}", u32::from(c))),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            c if at_an_end => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    fn described(forward: Forward) -> ClientCertificate {
        let mut params = CertificateParams::new(["app.test".to_owned()]).unwrap();
        let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
        params.subject_alt_names.push(SanType::URI(ia5("spiffe://test/app")));
        params.subject_alt_names.push(SanType::Rfc822Name(ia5("app@test")));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, "#app,O=Other");
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        describe(&[der.clone(), der], forward).unwrap()
    }

    #[test]
    fn everything_a_consumer_may_be_called_by_is_read() {
        let told = described(Forward::ClientCert);
        assert_eq!(&*told.subject, r"CN=\#app\,O=Other,O=Example\, Inc.");
        assert_eq!(told.common_name.as_deref(), Some("#app,O=Other"));
        assert_eq!(told.dns, [Box::from("app.test")]);
        assert_eq!(told.uris, [Box::from("spiffe://test/app")]);
        assert_eq!(told.emails, [Box::from("app@test")]);
        assert_eq!(told.fingerprint.len(), 7 + 64);
    }

    #[test]
    fn fields_are_as_rfc_9440_has_them() {
        let whole = described(Forward::ClientCertChain);
        let (one, chain) = (whole.header.unwrap(), whole.chain_header.unwrap());
        assert!(one.to_str().unwrap().starts_with(":MII") && one.to_str().unwrap().ends_with(':'));
        assert_eq!(one, chain, "the chain is what stands behind the first");
        assert_eq!(described(Forward::ClientCert).chain_header, None);
        assert_eq!(described(Forward::None).header, None);
    }
}
