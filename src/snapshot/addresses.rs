//! Where the process listens: what is missing, bound twice, or open to everybody.

use crate::config::Document;
use crate::config::document::{AdminBind, Listener};
use crate::listen::Limits;
use crate::value::{At, Code, Issue, Issues, Name, Spanned};
use std::net::SocketAddr;

/// Reports what is wrong with listeners and the admin listener.
pub(super) fn check(document: &Document, issues: &mut Issues) {
    if document.listeners.is_empty() {
        let issue = Issue::new(Code::EMPTY, "no listener is defined");
        issues.push(issue.help("add for example `listeners: { web: { bind: 127.0.0.1:8080 } }`"));
    }
    for (name, written) in document.listeners.iter() {
        check_listener(name, written, issues);
    }
    check_twice(document, issues);
    check_admin(document, issues);
}

fn check_listener(name: &Spanned<Name>, written: &Listener, issues: &mut Issues) {
    let mut wrong = |code, at: At, what: &str| {
        issues.push(Issue::new(code, format!("listener `{}` {what}", name.value)).at(at));
    };
    if written.bind.value.0.is_empty() {
        wrong(Code::EMPTY, written.bind.at, "binds no address");
    }
    if written.protocols.as_ref().is_some_and(Vec::is_empty) {
        wrong(Code::EMPTY, name.at, "speaks no protocol");
    }
    check_trust(written, issues);
    check_limits(name, written, issues);
}

/// Whoever may say where a request comes from can come from anywhere.
fn check_trust(written: &Listener, issues: &mut Issues) {
    let proxies = written.trusted_proxies.iter();
    let balancers = written.proxy_protocol.iter().flat_map(|proxy| &proxy.value.from.0);
    for network in proxies.chain(balancers).filter(|network| network.value.is_everything()) {
        let message =
            format!("`{}` lets every client choose the address that it seems to come from", network.value);
        let issue = Issue::new(Code::UNLIKELY, message).at(network.at);
        issues.push(issue.help("name the networks of your proxies only"));
    }
}

/// Frames of HTTP/2 that ask for nothing, which an honest client sends now and then.
const LEAST_FRAMES: u32 = 100;

/// What single limits cannot tell of themselves.
fn check_limits(name: &Spanned<Name>, written: &Listener, issues: &mut Issues) {
    let limits = &written.limits;
    let connections =
        limits.connections.map_or(Limits::default().connections as u64, |most| u64::from(*most));
    if let Some(per_ip) = limits.per_ip.as_ref().filter(|per_ip| u64::from(*per_ip.value) > connections) {
        let message = format!(
            "one address may have more connections ({}) than listener `{}` has for all ({connections})",
            per_ip.value, name.value
        );
        let issue = Issue::new(Code::NO_EFFECT, message).at(per_ip.at);
        issues.push(issue.help("make `per_ip` less than `connections`"));
    }
    if let Some(frames) = limits.h2_frames.filter(|frames| frames.value.count < LEAST_FRAMES) {
        let message =
            format!("honest clients send more than {} frames that ask for nothing", frames.value.count);
        let issue = Issue::new(Code::BAD_VALUE, message).at(frames.at);
        issues.push(issue.help(format!("allow {LEAST_FRAMES} at once or more, such as {LEAST_FRAMES}/10s")));
    }
    let Some(guard) = &limits.guard else { return };
    let (first, longest) = (guard.first_block(), guard.longest_block());
    if let Some(max) = guard.max_block.filter(|_| longest < first) {
        let message = format!("the longest block ({longest}) is shorter than the first ({first})");
        issues.push(
            Issue::new(Code::CONFLICT, message).at(max.at).help("make `max_block` no less than `block`"),
        );
    }
}

/// An address with who binds it and where that is written.
type Bound = (SocketAddr, At, String);

fn check_twice(document: &Document, issues: &mut Issues) {
    let listeners = document.listeners.iter().flat_map(|(name, written)| {
        let bound = |address: &SocketAddr| (*address, written.bind.at, format!("listener `{}`", name.value));
        written.bind.value.0.iter().map(bound).collect::<Vec<Bound>>()
    });
    let admin = match &document.admin.bind {
        Some(Spanned { value: AdminBind::Tcp(address), at }) => {
            Some((*address, *at, "admin listener".to_owned()))
        }
        _ => None,
    };
    let mut seen: Vec<Bound> = Vec::new();
    for (address, at, who) in listeners.chain(admin) {
        if let Some((_, first, other)) = seen.iter().find(|(known, ..)| overlap(*known, address)) {
            let issue = Issue::new(Code::ADDRESS_TWICE, format!("`{address}` is bound twice"));
            issues.push(issue.at(*first).label(other.clone()).and(at, who.clone()));
        }
        seen.push((address, at, who));
    }
}

/// Whether two addresses cannot both be bound: port 0 is a new one each time; an unspecified address takes its family.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip()
        || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() != 0 && a.port() == b.port() && same_ip
}

fn check_admin(document: &Document, issues: &mut Issues) {
    for (name, token) in document.admin.tokens.iter() {
        if token.expose().len() < 8 {
            let issue = Issue::new(
                Code::BAD_VALUE,
                format!("admin token `{}` is shorter than 8 characters", name.value),
            );
            issues.push(issue.at(name.at).help("`openssl rand -base64 24` makes a good one"));
        }
    }
    if let Some(Spanned { value: AdminBind::Tcp(address), at }) = &document.admin.bind
        && !address.ip().is_loopback()
        && document.admin.tokens.is_empty()
    {
        let issue = Issue::new(
            Code::ADMIN_OPEN,
            format!("the admin listener at {address} would be open to everybody"),
        )
        .at(*at);
        issues.push(issue.help("bind it to 127.0.0.1 or a Unix socket, or add `tokens`"));
    }
}
