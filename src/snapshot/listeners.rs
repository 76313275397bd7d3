//! TLS of listeners: which files, what is wrong with them, and what goes on over a reload.

use super::{Shared, Snapshot};
use crate::config::Loaded;
use crate::config::document::{ClientProtocol, Listener as Written};
use crate::listen::tls::certificates::Certificates;
use crate::listen::tls::document::{ClientCert, ClientMode, Tls as WrittenTls};
use crate::listen::tls::{Clients, Fault, File, Material, PairFiles, Spec, Tls};
use crate::value::{At, Code, Issue, Issues, Name, Spanned};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// TLS of every listener, in their order; what is wrong is reported. A listener whose settings and files are the same as
/// before keeps what it has.
pub(super) fn tls(
    loaded: &Loaded,
    shared: &Shared,
    running: Option<&Snapshot>,
    issues: &mut Issues,
) -> Vec<Option<Arc<Tls>>> {
    let mut all = Vec::new();
    for (name, written) in loaded.document.listeners.iter() {
        check_protocols(name, written, issues);
        check_doors(name, written, issues);
        let before = running.and_then(|running| {
            running.listeners.iter().find(|listener| listener.name == name.value)?.tls.as_ref()
        });
        let made = written.tls.as_ref().and_then(|tls| {
            let files = Files { pairs: pairs(name, tls, issues)?, clients: clients(name, tls, issues)? };
            let made = make(spec(&loaded.base, name, written, tls, &files), &files, shared, before, issues);
            if let Some(tls) = &made {
                warn(&tls.certificates(), &files.pairs, issues);
            }
            made
        });
        all.push(made);
    }
    all
}

/// HTTP/2 goes by two names, because it is begun in two ways.
fn check_protocols(name: &Spanned<Name>, written: &Written, issues: &mut Issues) {
    let speaks = |protocol| written.protocols.as_ref().is_some_and(|all| all.contains(&protocol));
    let wrong = match &written.tls {
        Some(_) if speaks(ClientProtocol::H2c) => {
            Some(("`h2c` is cleartext, but `tls` is set", "write `h2`"))
        }
        None if speaks(ClientProtocol::H2) => {
            Some(("`h2` needs `tls`", "write `h2c` for HTTP/2 in cleartext"))
        }
        _ => None,
    };
    if let Some((what, help)) = wrong {
        let message = format!("listener `{}`: protocol {what}", name.value);
        issues.push(Issue::new(Code::CONFLICT, message).at(name.at).help(help));
    }
}

fn check_doors(name: &Spanned<Name>, written: &Written, issues: &mut Issues) {
    if let (Some(redirect), Some(_)) = (&written.redirect_https, &written.tls) {
        let message = format!("listener `{}` speaks TLS: there is nothing to redirect", name.value);
        let issue = Issue::new(Code::CONFLICT, message).at(redirect.at);
        issues.push(issue.help(
            "add a listener without `tls`, such as `plain: { bind: 0.0.0.0:80, redirect_https: 308 }`",
        ));
    }
    if let Some(proxy) = written.proxy_protocol.as_ref().filter(|proxy| proxy.value.from.0.is_empty()) {
        let message = format!("nobody may speak the PROXY protocol on listener `{}`", name.value);
        issues.push(Issue::new(Code::EMPTY, message).at(proxy.at).help("name the load balancers in `from`"));
    }
}

/// A pair as written: certificate and key.
type Pair<'a> = (&'a Spanned<PathBuf>, &'a Spanned<PathBuf>);

/// All files as written.
struct Files<'a> {
    pairs: Vec<Pair<'a>>,
    /// Certificates of clients and who vouches for them, where any are asked for.
    clients: Option<(&'a ClientCert, &'a Spanned<PathBuf>)>,
}

/// The pairs in their order: the short form first.
fn pairs<'a>(
    name: &Spanned<Name>,
    tls: &'a Spanned<WrittenTls>,
    issues: &mut Issues,
) -> Option<Vec<Pair<'a>>> {
    let listed = tls.value.certs.iter().map(|files| (&files.value.cert, &files.value.key));
    let missing = |what: &str, at: At| {
        let message = format!("`tls` of listener `{}` has no `{what}`", name.value);
        Issue::new(Code::MISSING_KEY, message).at(at)
    };
    match (&tls.value.cert, &tls.value.key) {
        (Some(cert), Some(key)) => Some(std::iter::once((cert, key)).chain(listed).collect()),
        (Some(cert), None) => issues.take(Err(missing("key", cert.at))),
        (None, Some(key)) => issues.take(Err(missing("cert", key.at))),
        (None, None) if tls.value.certs.is_empty() => {
            let issue = missing("cert", tls.at);
            issues.take(Err(
                issue.help("write `tls: { cert: server.pem, key: server.key }`, or a list of `certs`")
            ))
        }
        (None, None) => Some(listed.collect()),
    }
}

/// Certificates of clients; `None` when what is written cannot work.
fn clients<'a>(
    name: &Spanned<Name>,
    tls: &'a Spanned<WrittenTls>,
    issues: &mut Issues,
) -> Option<Option<(&'a ClientCert, &'a Spanned<PathBuf>)>> {
    let Some(written) = &tls.value.client_cert else { return Some(None) };
    match (&written.value.ca, written.value.mode) {
        (_, ClientMode::Off) => Some(None),
        (Some(ca), _) => Some(Some((&written.value, ca))),
        (None, _) => {
            let message = format!("`client_cert` of listener `{}` has no `ca`", name.value);
            let issue = Issue::new(Code::MISSING_KEY, message).at(written.at);
            issues.take(Err(issue.help("name a file with the CA certificates that vouch for clients")))
        }
    }
}

fn spec(
    base: &Path,
    name: &Spanned<Name>,
    written: &Written,
    tls: &Spanned<WrittenTls>,
    files: &Files<'_>,
) -> Spec {
    let speaks = |protocol| written.protocols.as_ref().is_none_or(|protocols| protocols.contains(&protocol));
    let pair = |(cert, key): &Pair<'_>| PairFiles {
        cert: base.join(&cert.value),
        key: base.join(&key.value),
        label: cert.value.display().to_string(),
    };
    let clients = |(written, ca): (&ClientCert, &Spanned<PathBuf>)| Clients {
        mode: written.mode,
        ca: base.join(&ca.value),
        forward: written.forward,
    };
    Spec {
        listener: name.to_string(),
        pairs: files.pairs.iter().map(pair).collect(),
        min: tls.value.min,
        h2: speaks(ClientProtocol::H2),
        http1: speaks(ClientProtocol::Http1),
        clients: files.clients.map(clients),
    }
}

fn make(
    spec: Spec,
    files: &Files<'_>,
    shared: &Shared,
    before: Option<&Arc<Tls>>,
    issues: &mut Issues,
) -> Option<Arc<Tls>> {
    let material = match Material::read(&spec) {
        Ok(material) => material,
        Err(faults) => {
            issues.0.extend(faults.iter().map(|fault| finding(fault, files)));
            return None;
        }
    };
    if let Some(before) = before.filter(|before| before.is_made_from(&spec, &material)) {
        return Some(before.clone());
    }
    let metrics = shared.metrics.tls(&spec.listener);
    let at = files.pairs.first().map_or(At::NOWHERE, |(cert, _)| cert.at);
    let made = Tls::new(spec, material, shared.tickets.clone(), metrics);
    issues.take(made.map(Arc::new).map_err(|why| Issue::new(Code::BAD_TLS, why).at(at)))
}

fn finding(fault: &Fault, files: &Files<'_>) -> Issue {
    let (what, file) = match fault.file {
        File::Certificate(number) => ("certificate", files.pairs.get(number).map(|(cert, _)| *cert)),
        File::Key(number) => ("key", files.pairs.get(number).map(|(_, key)| *key)),
        File::Authorities => ("CA bundle", files.clients.map(|(_, ca)| ca)),
    };
    let (path, at) =
        file.map_or((String::new(), At::NOWHERE), |file| (file.value.display().to_string(), file.at));
    match fault.unreadable {
        true => Issue::new(Code::UNREADABLE, format!("{what} `{path}` cannot be read: {}", fault.why)).at(at),
        false => Issue::new(Code::BAD_TLS, format!("{what} `{path}` cannot be used: {}", fault.why)).at(at),
    }
}

/// What can run, but not as meant.
fn warn(certificates: &Certificates, pairs: &[Pair<'_>], issues: &mut Issues) {
    let now = jiff::Timestamp::now().as_second();
    for (number, (pair, (cert, _))) in certificates.all().iter().zip(pairs).enumerate() {
        let day = |seconds| {
            jiff::Timestamp::from_second(seconds)
                .map_or_else(|_| "an unknown day".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
        };
        let path = cert.value.display();
        if pair.not_after <= now {
            let message = format!("certificate `{path}` expired on {}", day(pair.not_after));
            issues.push(Issue::new(Code::EXPIRED, message).at(cert.at).help("renew it; clients refuse it"));
        }
        if pair.not_before > now {
            let message = format!("certificate `{path}` is not good before {}", day(pair.not_before));
            issues.push(Issue::new(Code::EXPIRED, message).at(cert.at).help("is the clock right?"));
        }
        if pair.names.is_empty() && number > 0 {
            let message = format!("certificate `{path}` names no host, so no client is ever shown it");
            issues.push(Issue::new(Code::UNUSED, message).at(cert.at));
        }
    }
}
