//! Certificates that clients have shown in the TLS handshake (RFC 8446 section 4.4.2): proven there, named here.

use super::document::{self, CertName};
use super::{Check, Provider, Refusal, Verdict};
use crate::consumer::{Consumers, Identity};
use crate::exchange::{ClientCertificate, Exchange, RequestHead};
use crate::reply::Kind;
use http::{HeaderName, HeaderValue};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Identities that are remembered; with more, all are made anew.
const REMEMBERED: usize = 10_000;

/// Names whoever has shown a certificate.
pub struct ClientCerts {
    name: Arc<str>,
    names: Vec<CertName>,
    consumers: Arc<Consumers>,
    forward: Option<HeaderName>,
    fields: Vec<HeaderName>,
    /// By fingerprint, so that a request makes nothing.
    known: RwLock<HashMap<Box<str>, Arc<Identity>>>,
}

impl ClientCerts {
    /// Makes the provider `name` from what is written.
    pub fn new(name: &Arc<str>, written: &document::ClientCert, consumers: &Arc<Consumers>) -> Self {
        let forward = written.forward.as_ref().map(|key| key.0.clone());
        let names = match written.consumer.0.as_slice() {
            [] => vec![CertName::SanDns, CertName::SanUri, CertName::Subject, CertName::Fingerprint],
            names => names.to_vec(),
        };
        ClientCerts {
            name: name.clone(),
            names,
            consumers: consumers.clone(),
            fields: forward.iter().cloned().collect(),
            forward,
            known: RwLock::default(),
        }
    }

    fn identity(&self, certificate: &ClientCertificate) -> Option<Arc<Identity>> {
        if let Some(known) = self.known.read().get(&certificate.fingerprint) {
            return Some(known.clone());
        }
        let identity = Arc::new(self.identify(certificate)?);
        let mut known = self.known.write();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(certificate.fingerprint.clone(), identity.clone());
        Some(identity)
    }

    /// The consumer that one of the certificate's names calls, in the order of the configuration; else nobody who is known,
    /// called by the first name.
    fn identify(&self, certificate: &ClientCertificate) -> Option<Identity> {
        let mut called = self.names.iter().flat_map(|kind| of_kind(*kind, certificate));
        let first = called.clone().next()?;
        let consumer = called.find_map(|name| self.consumers.named(name)).cloned();
        let subject = consumer.as_ref().map_or_else(|| Arc::from(first), |consumer| consumer.name.clone());
        let value =
            self.forward.as_ref().map(|header| Some((header.clone(), HeaderValue::from_str(&subject).ok()?)));
        Some(Identity {
            subject,
            consumer,
            provider: self.name.clone(),
            credential: (*certificate.fingerprint).into(),
            claims: None,
            forward: value.flatten().into_iter().collect(),
            expires: u64::try_from(certificate.not_after).ok(),
        })
    }
}

fn of_kind(kind: CertName, certificate: &ClientCertificate) -> impl Iterator<Item = &str> + Clone {
    let (one, many): (Option<&str>, &[Box<str>]) = match kind {
        CertName::Subject => (Some(&certificate.subject), &[]),
        CertName::SubjectCn => (certificate.common_name.as_deref(), &[]),
        CertName::SanDns => (None, &certificate.dns),
        CertName::SanUri => (None, &certificate.uris),
        CertName::SanEmail => (None, &certificate.emails),
        CertName::Fingerprint => (Some(&certificate.fingerprint), &[]),
    };
    one.into_iter().chain(many.iter().map(|name| &**name)).filter(|name| !name.is_empty())
}

impl Provider for ClientCerts {
    fn check<'a>(&'a self, _: &'a RequestHead, x: &Exchange) -> Check<'a> {
        let shown = x.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let Some(certificate) = shown else { return Check::Now(Verdict::Absent) };
        // Connections and sessions last longer than the moment in which it was verified.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if i64::try_from(now).unwrap_or(i64::MAX) > certificate.not_after {
            return Check::Now(Verdict::Refused(refusal("expired", "The certificate has expired.")));
        }
        Check::Now(match self.identity(certificate) {
            Some(identity) => Verdict::Accepted(identity),
            None => Verdict::Refused(refusal("no-name", "The certificate has no name that is asked for.")),
        })
    }

    fn forwards(&self) -> &[HeaderName] {
        &self.fields
    }

    fn remembered(&self) -> usize {
        self.known.read().len()
    }
}

fn refusal(why: &'static str, detail: &'static str) -> Refusal {
    Refusal { kind: Kind::INVALID_CERTIFICATE, why, error: None, detail: detail.into(), scope: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::Consumer;
    use crate::exchange::Secured;
    use crate::value::OneOrMany;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            fingerprint: "sha256:ab".into(),
            subject: "CN=app,O=Example".into(),
            common_name: Some("app".into()),
            dns: vec!["a.test".into(), "b.test".into()],
            uris: vec!["spiffe://test/app".into()],
            emails: Vec::new(),
            not_after: i64::MAX,
            header: None,
            chain_header: None,
        }
    }

    fn checked(names: &[CertName], known_as: &str, certificate: Option<ClientCertificate>) -> Verdict {
        let consumer = Arc::new(Consumer { name: "shop".into(), plan: None, tags: Vec::new() });
        let consumers = Arc::new(Consumers::new([(known_as.into(), consumer)]));
        let written = document::ClientCert {
            consumer: OneOrMany(names.to_vec()),
            forward: Some("x-machine".parse().unwrap()),
        };
        let provider = ClientCerts::new(&"machines".into(), &written, &consumers);
        let secured =
            Secured { sni: None, version: "1.3", cipher: "", resumed: false, h2: false, client: certificate };
        let x = Exchange { tls: Some(Arc::new(secured)), ..Exchange::default() };
        let (head, ()) = http::Request::new(()).into_parts();
        let _remembered = provider.check(&head, &x);
        match provider.check(&head, &x) {
            Check::Now(verdict) => verdict,
            Check::Later(_) => panic!("a certificate is known at once"),
        }
    }

    fn subject(names: &[CertName], known_as: &str) -> (String, bool) {
        match checked(names, known_as, Some(certificate())) {
            Verdict::Accepted(identity) => {
                assert_eq!(&*identity.credential, "sha256:ab");
                assert_eq!(identity.forward[0].1, *identity.subject);
                (identity.subject.to_string(), identity.consumer.is_some())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_name_that_calls_a_consumer_counts() {
        for known_as in ["b.test", "spiffe://test/app", "CN=app,O=Example", "sha256:ab"] {
            assert_eq!(subject(&[], known_as), ("shop".into(), true), "{known_as}");
        }
        assert_eq!(subject(&[], "app"), ("a.test".into(), false), "a common name must be asked for");
        assert_eq!(subject(&[CertName::SubjectCn], "app"), ("shop".into(), true));
        assert_eq!(subject(&[CertName::SanUri], "b.test"), ("spiffe://test/app".into(), false));
    }

    #[test]
    fn without_a_certificate_a_name_or_time_nobody_is_let_in() {
        assert!(matches!(checked(&[], "x", None), Verdict::Absent));
        let why = |names: &[CertName], certificate| match checked(names, "x", Some(certificate)) {
            Verdict::Refused(refusal) => refusal.why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(&[CertName::SanEmail], certificate()), "no-name");
        assert_eq!(why(&[], ClientCertificate { not_after: 1, ..certificate() }), "expired");
    }
}
