//! From an upstream as written to what it is made from.

use crate::build::Build;
use crate::upstream::document::{
    Balance, Breaker, Health, Host, Passive, Probe, Refresh, StickyCookie, Target, Tls, Upstream,
};
use crate::upstream::spec;
use crate::value::{At, Code, Issue, Issues, Key, Name, OrNone, Span, Spanned, Triggers};
use std::time::Duration;

/// Largest certificate or key file.
const MAX_PEM: u64 = 1 << 20;

/// Targets are not checked more often.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Names are not looked up more often.
const SHORTEST_LOOK_UP: Duration = Duration::from_millis(100);

/// Longer than any warming up takes.
const LONGEST_START: Duration = Duration::from_secs(3600);

/// The spec of an upstream; what is wrong with it is reported.
pub(super) fn spec(
    name: &Spanned<Name>,
    written: &Upstream,
    build: &Build,
    issues: &mut Issues,
) -> Result<spec::UpstreamSpec, Issue> {
    let targets = written.targets.value.iter().map(|target| spec::TargetSpec {
        address: target.addr.clone(),
        weight: target.weight,
        backup: target.backup,
    });
    let targets: Vec<_> = targets.collect();
    check_targets(name, written, issues)?;
    check_health(name, written, issues);
    check_sticky(written, issues);
    check_numbers(name, written, issues);
    let tls = written.tls.as_ref().filter(|tls| tls.value.on);
    let tls = tls.map(|tls| tls_spec(tls, build)).transpose()?;
    if let Some(tls) = written.tls.as_ref().filter(|tls| tls.value.on && !tls.value.verify.value) {
        let issue = Issue::new(
            Code::UNVERIFIED,
            format!("certificates of upstream `{}` are not verified", name.value),
        );
        issues.push(issue.at(tls.value.verify.at).help("give its CA with `ca:` instead"));
    }
    let default = spec::UpstreamSpec::new(name.value.clone(), targets);
    Ok(spec::UpstreamSpec {
        protocol: written.protocol,
        balance: match written.balance.as_ref().map(|balance| &balance.value) {
            None | Some(Balance::RoundRobin) => spec::Balance::RoundRobin,
            Some(Balance::LeastConn) => spec::Balance::LeastConn,
            Some(Balance::P2cEwma) => spec::Balance::P2cEwma,
            Some(Balance::Hash(_)) => spec::Balance::Hash,
            Some(Balance::StickyCookie(_)) => spec::Balance::StickyCookie,
        },
        sticky: sticky(name, written),
        backup_below: written.backup_below.as_ref().map_or(0, |share| share.value.0),
        slow_start: written.slow_start.map_or(Duration::ZERO, |span| span.value.0),
        breaker: written.breaker.as_ref().map(|breaker| breaker_spec(&breaker.value)),
        host: match &written.host {
            None | Some(Host::Client) => spec::HostRewrite::Client,
            Some(Host::Target) => spec::HostRewrite::Target,
            Some(Host::Literal(text)) => spec::HostRewrite::Literal(text.as_str().into()),
        },
        tls,
        health: written
            .health
            .as_ref()
            .map_or_else(spec::HealthSpec::default, |health| health_spec(&health.value)),
        discovery: discovery(written),
        pool: spec::PoolSpec {
            idle: written.pool.idle.map_or(default.pool.idle, |span| span.0),
            max: written.pool.max.map_or(0, |most| *most),
            per_target: written.pool.per_target.map_or(0, |most| *most.value),
        },
        ..default
    })
}

fn check_targets(name: &Spanned<Name>, written: &Upstream, issues: &mut Issues) -> Result<(), Issue> {
    let targets = &written.targets;
    if targets.value.is_empty() {
        return Err(
            Issue::new(Code::EMPTY, format!("upstream `{}` has no targets", name.value)).at(targets.at)
        );
    }
    check_backups(name, written)?;
    if targets.value.iter().all(|target| target.weight == 0) {
        let issue =
            Issue::new(Code::CONFLICT, format!("every target of upstream `{}` has weight 0", name.value))
                .at(targets.at);
        return Err(issue.help("give at least one target a weight above 0"));
    }
    let mut seen: Vec<&Spanned<Target>> = Vec::new();
    for target in &targets.value {
        if let Some(first) = seen.iter().find(|other| other.value.addr == target.value.addr) {
            let issue = Issue::new(
                Code::CONFLICT,
                format!("target `{}` stands twice in upstream `{}`", target.addr, name.value),
            );
            issues.push(
                issue
                    .at(first.at)
                    .label("first")
                    .and(target.at, "again")
                    .help("write it once with a higher `weight`"),
            );
        }
        seen.push(target);
    }
    Ok(())
}

/// Backups stand in for others, so there must be some; and a threshold is for nothing without backups.
fn check_backups(name: &Spanned<Name>, written: &Upstream) -> Result<(), Issue> {
    let targets = &written.targets;
    let count = targets.value.iter().filter(|target| target.value.backup).count();
    if count == targets.value.len() {
        let issue =
            Issue::new(Code::CONFLICT, format!("every target of upstream `{}` is a backup", name.value));
        return Err(issue.at(targets.at).help("leave out `backup` where requests go first"));
    }
    match &written.backup_below {
        Some(below) if count == 0 => {
            let issue = Issue::new(Code::CONFLICT, format!("upstream `{}` has no backups", name.value));
            Err(issue.at(below.at).help("write `backup: true` on a target, or remove `backup_below`"))
        }
        _ => Ok(()),
    }
}

/// Browsers drop such a cookie (RFC 6265bis section 5.7).
fn check_sticky(written: &Upstream, issues: &mut Issues) {
    let Some(balance) = &written.balance else { return };
    if let Balance::StickyCookie(cookie) = &balance.value
        && cookie.same_site == spec::SameSite::None
        && cookie.secure == Some(false)
    {
        let issue = Issue::new(
            Code::CONFLICT,
            "browsers refuse a cookie with `same_site: none` that is not `secure`",
        );
        issues.push(issue.at(balance.at).help("remove `secure: false`"));
    }
}

/// Numbers that say something only together.
fn check_numbers(name: &Spanned<Name>, written: &Upstream, issues: &mut Issues) {
    let Upstream { pool, discovery, .. } = written;
    if let (Some(max), Some(each)) = (pool.max, pool.per_target)
        && each.value > max
    {
        let message = format!(
            "one target of upstream `{}` may have more requests ({}) than all ({max})",
            name.value, each.value
        );
        issues
            .push(Issue::new(Code::NO_EFFECT, message).at(each.at).help("make `per_target` less than `max`"));
    }
    let spec::DiscoverySpec { min, max, refresh } = self::discovery(written);
    let at = discovery.max.map(|max| max.at).or(discovery.min.map(|min| min.at));
    if let Some(at) = at.filter(|_| max < min) {
        let message = format!("look-ups cannot be at most {} and at least {} apart", Span(max), Span(min));
        issues.push(Issue::new(Code::CONFLICT, message).at(at).help("make `max` no less than `min`"));
    }
    if let spec::Refresh::Every(time) = refresh
        && time < SHORTEST_LOOK_UP
    {
        let issue = Issue::new(Code::BAD_VALUE, format!("names are not looked up every {}", Span(time)));
        issues
            .push(issue.at(discovery.refresh.at).help(format!("write `{}` or more", Span(SHORTEST_LOOK_UP))));
    }
    check_slow_start(written, issues);
}

fn check_slow_start(written: &Upstream, issues: &mut Issues) {
    let Some(time) = written.slow_start.filter(|time| !time.value.0.is_zero()) else { return };
    if let Some(Balance::Hash(_)) = written.balance.as_ref().map(|balance| &balance.value) {
        let issue =
            Issue::new(Code::NO_EFFECT, "`slow_start` has no part in `balance: { hash: … }`").at(time.at);
        issues.push(issue.note("which target a request gets is told by its key alone"));
    }
    if time.value.0 > LONGEST_START {
        let message = format!("a target that is healthy again waits {} for its whole share", time.value);
        issues.push(Issue::new(Code::UNLIKELY, message).at(time.at).help("caches warm up within minutes"));
    }
}

fn sticky(name: &Spanned<Name>, written: &Upstream) -> Option<spec::StickySpec> {
    let Balance::StickyCookie(cookie) = &written.balance.as_ref()?.value else { return None };
    let StickyCookie { name: cookie_name, ttl, path, secure, same_site, secret } = cookie;
    Some(spec::StickySpec {
        upstream: name.value.as_str().into(),
        name: cookie_name.0.as_str().into(),
        ttl: ttl.map(|ttl| ttl.0),
        path: path.as_ref().map_or("/", |path| path.0.as_str()).into(),
        // Without it browsers would drop the cookie.
        secure: secure.or((*same_site == spec::SameSite::None).then_some(true)),
        same_site: *same_site,
        secret: secret.as_ref().map(|secret| secret.expose().as_bytes().into()),
    })
}

fn breaker_spec(written: &Breaker) -> spec::BreakerSpec {
    let default = spec::BreakerSpec::default();
    spec::BreakerSpec {
        error_rate: written.error_rate.map_or(default.error_rate, |rate| rate.0),
        min_requests: written.min_requests.map_or(default.min_requests, |requests| *requests),
        window: written.window.map_or(default.window, |span| span.0),
        open: written.open.map_or(default.open, |span| span.0),
        probes: written.probes.map_or(default.probes, |probes| *probes),
    }
}

/// `expect` and `host` are about an HTTP answer; elsewhere they would be ignored.
fn check_health(name: &Spanned<Name>, written: &Upstream, issues: &mut Issues) {
    let Some(health) = &written.health else { return };
    check_pace(&health.value, issues);
    let is_http = matches!(health.value.probe, Probe::Http { .. });
    if !is_http && (health.value.expect.is_some() || health.value.host.is_some()) {
        let message = format!(
            "the health check of upstream `{}` is not HTTP and has neither `expect` nor `host`",
            name.value
        );
        issues.push(
            Issue::new(Code::CONFLICT, message)
                .at(health.at)
                .help("write `probe: GET /path`, or remove them"),
        );
    }
}

/// How often a target is checked, and how long each check may take.
fn check_pace(health: &Health, issues: &mut Issues) {
    if let Some(every) = health.every.filter(|every| every.value.0 < SHORTEST_PAUSE) {
        let message = format!("checks every {} would be more work than requests", every.value);
        issues.push(Issue::new(Code::BAD_VALUE, message).at(every.at).help("write `10ms` or more"));
    }
    let every = health.every.map_or(spec::HealthSpec::default().every, |every| every.value.0);
    if let Some(timeout) = health.timeout.filter(|timeout| timeout.value.0 > every) {
        let message = format!(
            "a check that may take {} puts off the next, which is due after {}",
            timeout.value,
            Span(every)
        );
        let issue = Issue::new(Code::UNLIKELY, message).at(timeout.at);
        issues.push(issue.help("make `timeout` no longer than `every`"));
    }
}

fn tls_spec(tls: &Spanned<Tls>, build: &Build) -> Result<spec::TlsSpec, Issue> {
    let ca = tls.value.ca.as_ref().map(|ca| build.file(ca, MAX_PEM)).transpose()?;
    let client_cert = match &tls.value.client_cert {
        None => None,
        Some(pair) => {
            let read = |path: &std::path::Path| {
                build.file(&Spanned { value: path.to_owned(), at: pair.at }, MAX_PEM)
            };
            Some(spec::ClientCert {
                cert: read(&pair.value.cert)?.into(),
                key: read(&pair.value.key)?.into(),
            })
        }
    };
    Ok(spec::TlsSpec {
        sni: tls.value.sni.as_deref().map(Into::into),
        ca: ca.map(Into::into),
        client_cert,
        verify: tls.value.verify.value,
    })
}

fn health_spec(health: &Health) -> spec::HealthSpec {
    let default = spec::HealthSpec::default();
    let probe = match &health.probe {
        Probe::None => spec::Probe::None,
        Probe::Tcp => spec::Probe::Tcp,
        Probe::Grpc { service } => spec::Probe::Grpc { service: service.as_str().into() },
        Probe::Http { method, path } => spec::Probe::Http {
            method: method.clone(),
            path: path.as_str().into(),
            host: health.host.as_deref().map(Into::into),
            expect: health.expect.iter().flat_map(|expect| &expect.0).map(|status| status.get()).collect(),
        },
    };
    spec::HealthSpec {
        probe,
        every: health.every.map_or(default.every, |span| span.value.0),
        timeout: health.timeout.map_or(default.timeout, |span| span.value.0),
        up: health.up.map_or(default.up, |times| *times),
        down: health.down.map_or(default.down, |times| *times),
        passive: match (&health.passive, &health.probe) {
            (Some(OrNone::On(passive)), _) => Some(passive_spec(passive)),
            (Some(OrNone::Off), _) | (None, Probe::None) => None,
            (None, _) => default.passive,
        },
    }
}

fn passive_spec(written: &Passive) -> spec::PassiveSpec {
    let default = spec::PassiveSpec::default();
    spec::PassiveSpec {
        on: written.on.as_ref().map_or(default.on, |on| Triggers::new(&on.0)),
        failures: written.failures.map_or(default.failures, |failures| *failures),
        within: written.within.map_or(default.within, |span| span.0),
        eject: written.eject.map_or(default.eject, |span| span.0),
        max_ejected: written.max_ejected.map_or(default.max_ejected, |share| share.0),
        panic_below: written.panic_below.map_or(default.panic_below, |share| share.0),
    }
}

fn discovery(written: &Upstream) -> spec::DiscoverySpec {
    let default = spec::DiscoverySpec::default();
    spec::DiscoverySpec {
        refresh: match written.discovery.refresh.value {
            Refresh::Ttl => spec::Refresh::Ttl,
            Refresh::Every(span) => spec::Refresh::Every(span.0),
        },
        min: written.discovery.min.map_or(default.min, |span| span.value.0),
        max: written.discovery.max.map_or(default.max, |span| span.value.0),
    }
}

/// Where to report what the upstream itself finds wrong.
pub(super) fn place(name: &Spanned<Name>, written: &Upstream, message: &str) -> At {
    let tls = written.tls.as_ref().map(|tls| tls.at);
    let about_tls =
        ["TLS", "certificate", "key", "CA", "server name"].iter().any(|word| message.contains(word));
    tls.filter(|_| about_tls).unwrap_or(name.at)
}

/// What requests to it are hashed by.
pub(super) fn key(written: &Upstream) -> Option<Spanned<Key>> {
    let balance = written.balance.as_ref()?;
    match &balance.value {
        Balance::Hash(key) => Some(Spanned { value: key.clone(), at: balance.at }),
        _ => None,
    }
}
