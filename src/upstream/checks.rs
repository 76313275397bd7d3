//! What can be told of a spec before anything is made from it.

use super::spec::{HostRewrite, Probe, UpstreamSpec};

/// Finds what could not work.
///
/// # Errors
/// A line for the operator.
pub(super) fn check(spec: &UpstreamSpec) -> Result<(), String> {
    if spec.targets.is_empty() {
        return Err("no targets\nhelp: write for example `targets: [\"127.0.0.1:3000\"]`".to_owned());
    }
    if spec.health.probe != Probe::None {
        if spec.health.every.is_zero() || spec.health.timeout.is_zero() {
            return Err("`every` and `timeout` of a health check must be longer than 0s".to_owned());
        }
        if spec.health.up == 0 || spec.health.down == 0 {
            return Err("`up` and `down` of a health check must be at least 1".to_owned());
        }
    }
    if let HostRewrite::Literal(host) = &spec.host
        && host.parse::<http::uri::Authority>().is_err()
    {
        return Err(format!(
            "`{host}` cannot be a Host header\nhelp: write a name, with a port if it needs one"
        ));
    }
    check_probe(&spec.health.probe)
}

fn check_probe(probe: &Probe) -> Result<(), String> {
    let Probe::Http { path, host, expect, .. } = probe else { return Ok(()) };
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(format!("`{path}` is not a path to probe\nhelp: write for example `GET /healthz`"));
    }
    if let Some(host) = host.as_ref().filter(|host| host.parse::<http::uri::Authority>().is_err()) {
        return Err(format!("`{host}` cannot be a Host header"));
    }
    match expect.iter().find(|status| !(200..=599).contains(*status)) {
        Some(status) => Err(format!("a probe cannot expect status {status}\nhelp: from 200 to 599")),
        None => Ok(()),
    }
}
