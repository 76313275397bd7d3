//! The lists the program works with: steps, sources, errors, findings, metrics, log fields, signals.

use super::keys::{anchor, row};
use crate::filters::STEPS;
use crate::listen::framing::Flaw;
use crate::observe::metrics::{Attempt, Metrics};
use crate::reply::Kind;
use crate::value::issue::{CODES, Level};
use http::Method;
use std::time::Duration;

/// A heading and what makes the text below it.
type Section = (&'static str, fn() -> String);

const SECTIONS: &[Section] = &[
    ("Which route wins", precedence),
    ("Order of steps", steps),
    ("Template sources", templates),
    ("Error answers", errors),
    ("Refused requests", refused),
    ("Findings of `tollgate check`", findings),
    ("Access log", access_log),
    ("Metrics", metrics),
    ("Admin listener", admin),
    ("Signals", signals),
    ("Exit codes", exit_codes),
];

/// The settings that each step follows.
const SETTINGS: &[(&str, &str)] = &[
    ("cors", "`cors`"),
    ("ip", "`ip`"),
    ("maintenance", "`apis.NAME.maintenance`"),
    ("limits by address", "`limits` that count `per client_ip` and nothing else"),
    ("auth", "`auth`, `auth.NAME`"),
    ("deprecation", "`deprecated`, `sunset`, `successor`, `notice`, `gone`"),
    ("concurrency", "`concurrency`"),
    ("limits", "`limits`, `plans.NAME`"),
    ("body", "`body`"),
    ("fault", "`fault`"),
    ("version", "`apis.NAME.versions`"),
    ("request headers", "`request.headers`"),
    ("rewrite", "`request.path`, `request.query`, `request.method`, `request.host`"),
    ("response headers", "`response.headers`"),
];

/// What may stand in `${…}`, as an example each.
const SOURCES: &[(&str, &str)] = &[
    ("path.id", "The path parameter `{id}` of the route."),
    ("query.page", "The first value of the query parameter, as it was sent."),
    ("header.x-tenant", "The first value of the request header."),
    ("cookie.sid", "The cookie."),
    ("claims.sub", "The claim of the token; of a nested one its path, such as `claims.app.tenant`."),
    ("consumer", "Name of the consumer, or what the credential calls its bearer."),
    ("client_ip", "The client's address; behind trusted proxies, the one they name."),
    ("request_id", "The id of the request."),
    ("host", "The host the client asked for, in lower case, without port."),
    ("method", "The request method."),
    ("scheme", "`http` or `https`."),
    ("api", "The name of the API."),
    ("route", "The name of the route."),
];

/// The fields of a line, in their order.
const LOG_FIELDS: &[(&str, &str)] = &[
    ("ts", "When the request was done: RFC 3339, UTC, milliseconds."),
    ("request_id", "Its id, also in the header named by `telemetry.request_id.header`."),
    ("client_ip", "The client's address; behind trusted proxies, the one they name."),
    ("listener", "Name of the listener."),
    ("protocol", "Protocol of the client."),
    ("scheme", "`http` or `https`."),
    ("tls_version", "Version of TLS, if the client speaks it with tollgate."),
    ("tls_cipher", "Cipher suite, as IANA registers it."),
    ("sni", "The host that the client asked for in the TLS handshake."),
    ("client_cert", "Digest of the certificate that the client has shown: `sha256:` and hexadecimal digits."),
    ("method", "Request method."),
    ("host", "What the client asked for in `Host` or `:authority`."),
    ("path", "Path in its normal form."),
    (
        "query",
        "Query, if there is one; values named by `telemetry.redact.query` are replaced by `[redacted]`.",
    ),
    ("api", "Name of the API, if a route was found."),
    ("route", "`api.route`, if a route was found."),
    ("template", "The path pattern of the route."),
    ("consumer", "Name of the consumer, or what the credential calls its bearer, once it has been proven."),
    ("auth", "Name of the provider that proved it."),
    ("credential", "Which of the caller's keys or tokens: a name or a digest, never the secret."),
    ("auth_error", "Why a credential was refused, or could not be checked."),
    ("limit", "The limit that refused the request, or would have if it were not in shadow."),
    ("fault", "The fault that was made on purpose: `delay`, `abort`, `delay+abort`."),
    ("status", "Status of the answer; 499 if the client went away before it."),
    (
        "cache",
        "What the cache did, where the route has one: `hit`, `stale`, `revalidated`, `collapsed`, `miss`, `bypass`.",
    ),
    ("fallback", "What stood in for the upstream's answer: `stale`, `upstream`, `respond`."),
    (
        "reason",
        "Why tollgate answered itself: a code of the [error answers](#error-answers), or of the [requests that are refused](#refused-requests).",
    ),
    ("bytes_in", "Bytes of the request body."),
    ("bytes_out", "Bytes of the response body."),
    ("duration_ms", "From the first byte of the request to the last of the response."),
    ("overhead_ms", "The part of it that was not spent waiting for an upstream."),
    ("upstream", "Name of the upstream, if one was asked."),
    ("target", "Address of the last target that was tried."),
    ("attempts", "How many attempts were made."),
    ("upstream_connect_ms", "Time to connect; absent when a connection was reused."),
    ("upstream_first_byte_ms", "Time from the request sent to the first byte of the answer."),
    ("user_agent", "`User-Agent`, if there was one."),
];

/// Links to all sections.
pub(super) fn contents() -> String {
    SECTIONS.iter().map(|(heading, _)| format!("- [{heading}](#{})\n", anchor(heading))).collect()
}

/// All sections.
pub(super) fn sections() -> String {
    SECTIONS.iter().map(|(heading, text)| format!("\n## {heading}\n\n{}", text())).collect()
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = row(&head);
    table.push_str(&format!("|{}\n", "---|".repeat(N)));
    table.extend(rows.into_iter().map(|cells| row(&cells.each_ref().map(String::as_str))));
    table
}

/// A table whose first column is code.
fn coded<'a>(head: [&str; 2], rows: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> String {
    table(head, rows.into_iter().map(|(code, meaning)| [format!("`{code}`"), (*meaning).to_owned()]))
}

fn precedence() -> String {
    "\
Of all routes that match a request, the first by these rules answers it. `tollgate routes` lists them in this order.

1. The higher `priority`.
2. Host: an exact one, then `*.example.com`, then any.
3. Path: without `**` before with it; with it, the one with more segments before it; then, from left to right, a literal
   segment before a parameter.
4. Methods: a route that states the method, then one that states GET for a HEAD request, then one that states none.
5. The route with more conditions on headers and query.

Routes that match the same request and are equal in all of these are an error. If no route matches, the answer is 404; if
only the method is wrong, 405 with `Allow`. OPTIONS needs a route of its own, but `OPTIONS *`, which is about the server
as a whole, is answered 204.
"
    .to_owned()
}

fn steps() -> String {
    let settings =
        |name: &str| SETTINGS.iter().find(|(step, _)| *step == name).map_or("", |(_, settings)| settings);
    let rows = (1..).zip(STEPS).map(|(number, (name, _, purpose))| {
        [format!("{number}"), (*name).to_owned(), settings(name).to_owned(), sentence(purpose)]
    });
    format!(
        "A request passes the steps of its route in this order, a response in reverse. A route has those steps that its settings\n\
         ask for; `tollgate explain` shows them.\n\n{}\n\
         Then the request goes where `to` says. Changes to headers are made in the order remove, rename, default, set, add;\n\
         changes to the query in the order allow, remove, rename, set, add.\n",
        table(["", "step", "follows", "what it does"], rows)
    )
}

/// With a capital and a full stop.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).chain(['.']).collect()
}

fn templates() -> String {
    let rows = SOURCES.iter().map(|(source, meaning)| [format!("`${{{source}}}`"), (*meaning).to_owned()]);
    format!(
        "Filled in for each request. What the request does not have is empty. `$${{` stands for the text `${{`.\n\n{}",
        table(["source", "value"], rows)
    )
}

fn errors() -> String {
    let mut kinds: Vec<_> = Kind::ALL.iter().collect();
    kinds.sort_by_key(|(kind, _)| kind.status);
    let rows = kinds.into_iter().map(|(kind, meaning)| {
        let Kind { status, code, title, grpc } = kind;
        [
            status.to_string(),
            format!("`{code}`"),
            (*title).to_owned(),
            grpc.to_string(),
            meaning.trim().to_owned(),
        ]
    });
    format!(
        "Answers that tollgate makes itself are problem details (RFC 9457, `application/problem+json`) with `type`, `title`,\n\
         `status`, `code`, `instance`, `request_id` and sometimes `detail`. Clients that prefer HTML get a page; gRPC clients get\n\
         HTTP status 200 with `grpc-status` and `grpc-message`. The code is also `reason` in the access log.\n\n{}",
        table(["status", "code", "title", "gRPC status", "meaning"], rows)
    )
}

fn refused() -> String {
    let rows = Flaw::ALL
        .iter()
        .map(|flaw| [format!("`{}`", flaw.code()), flaw.kind().status.to_string(), flaw.detail().to_owned()]);
    format!(
        "A request over HTTP/1.1 that two readers could understand differently is answered, whatever route it is for, and its\n         connection ends. The code is `reason` in the access log and in `tollgate_refused_requests_total`.\n\n{}",
        table(["code", "status", "meaning"], rows)
    )
}

fn findings() -> String {
    let rows = CODES.iter().map(|(code, meaning)| {
        let level = if code.level() == Level::Error { "error" } else { "warning" };
        [format!("`{code}`"), level.to_owned(), meaning.trim().to_owned()]
    });
    format!(
        "All findings are reported at once, each with its place. With an error the configuration is refused; `--strict` makes\n\
         warnings count too. Codes never change their meaning.\n\n{}",
        table(["code", "level", "meaning"], rows)
    )
}

fn access_log() -> String {
    format!(
        "One JSON object on a line for each request, when it is done. What a request does not have is left out. Fields of\n\
         `telemetry.access_log.fields.add` follow. A log that is slower than the requests loses lines rather than hold up requests;\n\
         `tollgate_log_dropped_total` counts them.\n\n{}",
        coded(["field", "meaning"], LOG_FIELDS)
    )
}

fn metrics() -> String {
    let rows = families().into_iter().map(|family| {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        [format!("`{}`", family.name), family.kind, labels.join(", "), family.help]
    });
    format!(
        "On the admin listener at `/metrics`, in the text format of Prometheus. Durations are in seconds. Requests that\n\
         find no route count with `-` for `api` and `route`; what exceeds `telemetry.metrics.max_series` counts with `other`. The\n\
         `result` of an attempt is one of\n{}.\n\n{}",
        results(),
        table(["metric", "type", "labels", "meaning"], rows)
    )
}

/// A metric as Prometheus reads it.
struct Family {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
}

/// All metrics, read from what a gateway shows that has seen one of everything.
fn families() -> Vec<Family> {
    let Ok(metrics) = Metrics::new(1000) else { return Vec::new() };
    let route = metrics.route("api", "route");
    route.record(&Method::GET, 200, Duration::ZERO, Duration::ZERO);
    let upstream = metrics.upstream("upstream");
    upstream.attempt(Attempt::Ok, Duration::ZERO);
    upstream.target_up("target").set(1);
    upstream.dns_failure();
    metrics.connections("listener").inc();
    metrics.refused("listener", "line-end").inc();
    metrics.refused_connections("listener", "per_ip").inc();
    metrics.touch_access();
    metrics.touch_cache();
    metrics.touch_tls();
    metrics.touch_traffic();
    metrics.touch_resilience();
    metrics.config_loaded("hash", "version");
    let text = metrics.render(|_| {});
    read_families(&String::from_utf8_lossy(&text))
}

fn read_families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.push(Family {
                name: name.to_owned(),
                kind: String::new(),
                labels: Vec::new(),
                help: help.to_owned(),
            });
        } else if let Some(family) = families.last_mut() {
            match line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                Some((_, kind)) => kind.clone_into(&mut family.kind),
                None if family.labels.is_empty() => family.labels = labels(line),
                None => {}
            }
        }
    }
    families
}

/// The names of the labels of one series, without what every histogram has.
fn labels(series: &str) -> Vec<String> {
    let Some((inside, _)) = series.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) else {
        return Vec::new();
    };
    let names =
        inside.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "le").collect()
}

/// The values of the label `result`.
fn results() -> String {
    use Attempt::{Broken, Cancelled, ConnectFailed, ConnectTimeout, Ok, ServerError, Timeout, TlsFailed};
    let all = [Ok, ServerError, ConnectFailed, ConnectTimeout, TlsFailed, Timeout, Broken, Cancelled];
    all.map(|result| format!("`{}`", result.label())).join(", ")
}

fn admin() -> String {
    format!(
        "Every path but the first two needs `Authorization: Bearer TOKEN` when `admin.tokens` names any. Changes are taken over a \
         Unix socket, or with a token.\n\n{}",
        coded(
            ["request", "answer"],
            &[
                ("GET /healthz", "200 while the process runs."),
                ("GET /readyz", "200 while it takes requests; 503 while it starts or stops."),
                ("GET /metrics", "[Metrics](#metrics)."),
                (
                    "GET /config",
                    "The configuration as JSON, secrets redacted, with the place of every value."
                ),
                ("GET /upstreams", "Upstreams, their targets and their health."),
                (
                    "GET /status",
                    "Version, configuration, uptime, numbers of things: what `tollgate status` shows."
                ),
                ("GET /explain", "What `tollgate explain --live` shows."),
                ("GET /splits", "The splits and their shares: what `tollgate split` shows."),
                (
                    "PUT /splits/ROUTE?UPSTREAM=SHARE",
                    "Other shares, such as `/splits/orders.read?orders-v2=20%25`, until a reload changes the split. Arms may \
                     follow each other with `&`."
                ),
                ("DELETE /splits/ROUTE", "The shares that the configuration says."),
                (
                    "POST /reload",
                    "Reads the configuration again: what `tollgate reload` does. With `?dry_run=1` only tells what differs. 422 \
                     with the findings when it is wrong."
                ),
                (
                    "PUT /config",
                    "Another configuration instead, written to the file, too, or only until the next reload with \
                     `?ephemeral=1`; `?dry_run=1` as above. `If-Match` must have the entity tag of `GET /config`."
                ),
                (
                    "POST /upstreams/NAME/drain",
                    "What `tollgate upstream drain` does, with `?target=ADDRESS` for one target; `undrain` likewise, and `weight` with \
                     `&weight=N`. The answer is the upstream as it is then."
                ),
                (
                    "POST /upgrade",
                    "What `tollgate upgrade` does; `?within=SECONDS`, over the Unix socket `&binary=PATH`."
                ),
            ]
        )
    )
}

fn signals() -> String {
    coded(
        ["signal", "what happens"],
        &[
            (
                "TERM",
                "Graceful stop: no new connections, requests in flight go on up to `process.drain.requests`. A second one is fast.",
            ),
            ("QUIT", "As TERM."),
            ("INT", "Fast stop."),
            ("USR1", "Log files are opened anew, after a rotation."),
            ("HUP", "The configuration is read again, as by `tollgate reload`."),
            (
                "USR2",
                "Another process takes over with the binary that is there now, as by `tollgate upgrade`.",
            ),
        ],
    )
}

fn exit_codes() -> String {
    coded(
        ["code", "meaning"],
        &[
            ("0", "As asked."),
            ("1", "The operation failed; of `diff`, that there is a difference."),
            ("2", "The arguments are wrong; of `diff` also that it failed."),
            ("3", "The configuration is invalid; with `check --strict` also if there are warnings."),
            ("4", "The running gateway cannot be reached."),
            ("5", "The running gateway refused."),
            ("6", "The upgrade was aborted, and the old process goes on."),
            ("130", "Interrupted."),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Part, Template};
    use regex::Regex;

    #[test]
    fn every_step_says_what_it_follows() {
        let steps: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
        let described: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(steps, described);
    }

    #[test]
    fn every_source_is_one() {
        for (source, _) in SOURCES {
            let template: Template = format!("${{{source}}}").parse().unwrap();
            assert!(!matches!(template.parts(), [Part::Text(_)] | []), "{source}");
        }
        let help = "${nope}".parse::<Template>().unwrap_err();
        let known = help.split_once("use one of ").unwrap().1.split(", ").count();
        assert_eq!(known, SOURCES.len(), "{help}");
    }

    #[test]
    fn the_fields_are_those_of_the_log_in_its_order() {
        let source = include_str!("../../observe/mod.rs");
        let code = source.split("#[cfg(test)]").next().unwrap();
        let written = Regex::new(r#"name!\("([a-z_]+)"\)"#).unwrap();
        let mut written: Vec<&str> =
            written.captures_iter(code).map(|found| found.get(1).unwrap().as_str()).collect();
        let mut documented: Vec<&str> =
            LOG_FIELDS.iter().map(|(name, _)| *name).filter(|name| *name != "ts").collect();
        written.sort_unstable();
        written.dedup();
        documented.sort_unstable();
        assert_eq!(documented, written);
    }

    #[test]
    fn every_metric_is_listed_with_its_labels() {
        let families = families();
        let source = include_str!("../../observe/metrics.rs").split("#[cfg(test)]").next().unwrap();
        let declared = Regex::new(r#""(tollgate_[a-z_]+|process_[a-z_]+)""#).unwrap();
        for name in declared.captures_iter(source) {
            assert!(families.iter().any(|family| family.name == name[1]), "{}", &name[1]);
        }
        let family = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        assert_eq!(family("tollgate_http_requests_total").labels, ["api", "method", "route", "status"]);
        assert_eq!(family("tollgate_http_request_duration_seconds").labels, ["api", "route"]);
        assert_eq!(family("tollgate_gateway_overhead_seconds").kind, "histogram");
        assert!(families.iter().all(|family| !family.kind.is_empty() && family.help.ends_with('.')));
    }
}
