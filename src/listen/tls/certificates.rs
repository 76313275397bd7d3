//! The certificates of a listener, found by the name a client asks for.

use super::pair::Pair;
use crate::value::parent_domain;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// Places in the list of certificates: more than one when a name has certificates of several kinds of key.
type Places = SmallVec<[usize; 2]>;

/// The certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    all: Vec<Pair>,
    exact: HashMap<Box<str>, Places>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, Places>,
}

impl Certificates {
    /// From any certificates; the first is for clients that ask for a name that none is for, or for none.
    pub fn new(all: Vec<Pair>) -> Certificates {
        let (mut exact, mut wildcard) = (HashMap::<_, Places>::new(), HashMap::<_, Places>::new());
        for (place, pair) in all.iter().enumerate() {
            for name in &pair.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, &**name),
                };
                names.entry(name.into()).or_default().push(place);
            }
        }
        Certificates { all, exact, wildcard }
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> &[Pair] {
        &self.all
    }

    /// Whether a request for `host` does not belong on a connection that was made for `sni`: another certificate is for
    /// this host, and the one that was shown is not (RFC 9110 section 15.5.20). A host that no certificate is for is
    /// everybody's, like the first certificate.
    pub fn is_misdirected(&self, sni: &str, host: &str) -> bool {
        if sni == host {
            return false;
        }
        let shown = self.shown(sni);
        let mut is_covered = false;
        for place in self.exactly(host).iter().chain(self.by_wildcard(host)) {
            if shown.contains(place) {
                return false;
            }
            is_covered = true;
        }
        is_covered
    }

    /// The certificates that a client may be shown that asks for this name.
    fn shown(&self, sni: &str) -> &[usize] {
        [self.exactly(sni), self.by_wildcard(sni)]
            .into_iter()
            .find(|places| !places.is_empty())
            .unwrap_or(&[0])
    }

    fn exactly(&self, name: &str) -> &[usize] {
        self.exact.get(name).map_or(&[], |places| places)
    }

    /// A wildcard stands for one label (RFC 9525 section 6.3).
    fn by_wildcard(&self, name: &str) -> &[usize] {
        let places = parent_domain(name).and_then(|parent| self.wildcard.get(parent));
        places.map_or(&[], |places| places)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let places = hello.server_name().map_or(&[0][..], |name| self.shown(name));
        let certified = |place: &usize| self.all.get(*place).map(|pair| &pair.certified);
        let schemes = hello.signature_schemes();
        let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        let mut candidates = places.iter().filter_map(certified);
        let first = candidates.clone().next();
        candidates.find(fits).or(first).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair::tests::pair;
    use super::*;

    #[test]
    fn exact_before_wildcard_before_the_first() {
        let certificates = Certificates::new(vec![
            pair(&["default.test"]),
            pair(&["*.example.com", "example.com"]),
            pair(&["api.example.com"]),
            pair(&["api.example.com"]),
        ]);
        for (sni, shown) in [
            ("default.test", &[0][..]),
            ("example.com", &[1]),
            ("www.example.com", &[1]),
            ("api.example.com", &[2, 3]),
            ("a.b.example.com", &[0]),
            ("unknown.test", &[0]),
            ("com", &[0]),
        ] {
            assert_eq!(certificates.shown(sni), shown, "{sni}");
        }
    }

    #[test]
    fn only_hosts_of_another_certificate_are_misdirected() {
        let certificates = Certificates::new(vec![
            pair(&["default.test"]),
            pair(&["*.example.com", "example.com"]),
            pair(&["api.example.com"]),
            pair(&["127.0.0.1"]),
        ]);
        for (sni, host, misdirected) in [
            ("www.example.com", "www.example.com", false),
            ("www.example.com", "example.com", false),
            // The wildcard is for this one too.
            ("www.example.com", "api.example.com", false),
            ("api.example.com", "www.example.com", true),
            ("api.example.com", "default.test", true),
            ("api.example.com", "127.0.0.1", true),
            // Nobody's.
            ("api.example.com", "unknown.test", false),
            ("unknown.test", "default.test", false),
            ("unknown.test", "api.example.com", true),
            ("default.test", "example.com", true),
        ] {
            assert_eq!(certificates.is_misdirected(sni, host), misdirected, "{sni} {host}");
        }
    }
}
