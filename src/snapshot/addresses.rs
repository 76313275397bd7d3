//! Where the process listens: what is missing, bound twice, or open to everybody.

use crate::config::Document;
use crate::config::document::{AdminBind, Listener, ListenerLimits};
use crate::value::{At, Code, Issue, Issues, Name, Spanned};
use std::net::SocketAddr;

/// Most header fields that the engine reads at all.
const ENGINE_HEADERS: u32 = 256;

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
    if written.limits.headers.is_some_and(|headers| !(1..=ENGINE_HEADERS).contains(&headers)) {
        wrong(Code::BAD_VALUE, name.at, "can take 1 to 256 header fields");
    }
    if written.limits.keepalive.is_some_and(|keepalive| keepalive.0.as_secs() == 0) {
        wrong(Code::BAD_VALUE, name.at, "must keep idle connections for 1s at least");
    }
    for (key, what) in impossible_limits(&written.limits) {
        wrong(Code::BAD_VALUE, name.at, &format!("cannot have `limits.{key}` {what}"));
    }
}

/// Frames of HTTP/2 that say nothing, which an honest client sends now and then.
const LEAST_FRAMES: u32 = 100;

/// Limits with which nobody could be served, and what is wrong with them.
fn impossible_limits(limits: &ListenerLimits) -> impl Iterator<Item = (&'static str, &'static str)> {
    let times = [
        ("header_timeout", limits.header_timeout),
        ("body_idle", limits.body_idle),
        ("send_idle", limits.send_idle),
        ("handshake_timeout", limits.handshake_timeout),
    ];
    let counts = [
        ("requests", limits.requests),
        ("connections", limits.connections.map(u64::from)),
        ("per_ip", limits.per_ip.map(u64::from)),
        ("h2_streams", limits.h2_streams.map(u64::from)),
        ("h2_requests", limits.h2_requests),
    ];
    let no_time = times.into_iter().filter(|(_, time)| time.is_some_and(|time| time.0.is_zero()));
    let none = counts.into_iter().filter(|(_, count)| *count == Some(0));
    // RFC 9113 section 6.9.1; streams begin with 65,535.
    let window = limits.h2_window.filter(|window| !(65_535..=0x7fff_ffff).contains(&window.0));
    let frames = limits.h2_frames.filter(|frames| frames.count < LEAST_FRAMES);
    no_time
        .map(|(key, _)| (key, "of no time"))
        .chain(none.map(|(key, _)| (key, "of 0")))
        .chain(frames.map(|_| ("h2_frames", "of less than 100 at once")))
        .chain(window.map(|_| ("h2_window", "below 64KiB or above 2GiB")))
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
