//! What a look-up in the route table costs at 10, 1,000 and 10,000 routes, with the path shapes of a large public REST API.
//!
//! ```text
//! cargo bench --bench routes                              nanoseconds per look-up, all sizes and mixes
//! cargo bench --bench routes -- COUNT LOOKUPS [MIX]       only does the work; MIX is hit, 404 or 405
//! ```
//! `loadtest/route-instructions` counts the instructions of a look-up as the difference of two runs of the second form.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

use http::{HeaderMap, Method};
use std::hint::black_box;
use std::time::Instant;
use tollgate::route::{Found, Lookup, Methods, Rule, Table};
use tollgate::value::HostPattern;

const HOST: &str = "api.example.com";
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Different requests in a run; small enough to build under an instruction counter, large enough to visit many routes.
const REQUESTS: usize = 2_048;

/// `%` stands for a noun. Every size has the same shapes in the same proportion, so that only the number of routes differs.
const SHAPES: [(&str, &str); 10] = [
    ("GET", "/%/%"),
    ("GET", "/%/%/{id}"),
    ("GET", "/repos/{owner}/{repo}/%/%"),
    ("POST", "/repos/{owner}/{repo}/%/{number}/%"),
    ("GET", "/repos/{owner}/{repo}/%/{number}/%/{item_id}"),
    ("DELETE", "/orgs/{org}/%/%"),
    ("PATCH", "/orgs/{org}/%/{slug}/%"),
    ("GET", "/users/{username}/%/%"),
    ("PUT", "/enterprises/{enterprise}/%/{group_id}/%/{member_id}"),
    ("GET", "/repos/{owner}/{repo}/%/%/{path...}"),
];

const NOUNS: [&str; 40] = [
    "issues",
    "pulls",
    "comments",
    "commits",
    "branches",
    "labels",
    "releases",
    "assets",
    "hooks",
    "keys",
    "actions",
    "workflows",
    "runs",
    "jobs",
    "artifacts",
    "secrets",
    "variables",
    "teams",
    "members",
    "invitations",
    "projects",
    "columns",
    "cards",
    "gists",
    "stars",
    "followers",
    "events",
    "contents",
    "deployments",
    "statuses",
    "packages",
    "versions",
    "codespaces",
    "checks",
    "reviews",
    "reactions",
    "milestones",
    "tags",
    "topics",
    "traffic",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mix {
    Hit,
    NotFound,
    WrongMethod,
}

struct Request {
    method: Method,
    path: String,
}

fn main() -> Result<(), String> {
    // `cargo bench` adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |text: &String| text.parse::<usize>().map_err(|error| format!("{text}: {error}"));
    match args.as_slice() {
        [] => report(),
        [count, lookups] => run(number(count)?, number(lookups)?, Mix::Hit).map(drop),
        [count, lookups, mix] => run(number(count)?, number(lookups)?, mix_named(mix)?).map(drop),
        _ => Err("usage: routes [COUNT LOOKUPS [hit|404|405]]".to_owned()),
    }
}

fn mix_named(name: &str) -> Result<Mix, String> {
    match name {
        "hit" => Ok(Mix::Hit),
        "404" => Ok(Mix::NotFound),
        "405" => Ok(Mix::WrongMethod),
        _ => Err(format!("`{name}` is not hit, 404 or 405")),
    }
}

fn report() -> Result<(), String> {
    const LOOKUPS: usize = 1_000_000;
    println!("{:>7} {:>10} {:>10} {:>10}   nanoseconds per look-up", "routes", "hit", "404", "405");
    for count in SIZES {
        let mut columns = Vec::new();
        for mix in [Mix::Hit, Mix::NotFound, Mix::WrongMethod] {
            columns.push(run(count, LOOKUPS, mix)?);
        }
        let columns: String = columns.iter().map(|nanoseconds| format!(" {nanoseconds:>10.1}")).collect();
        println!("{count:>7}{columns}");
    }
    Ok(())
}

/// Builds a table and looks up; gives nanoseconds per look-up. All work but the look-ups depends on `count` and `mix` only.
fn run(count: usize, lookups: usize, mix: Mix) -> Result<f64, String> {
    let table = Table::new((0..count).map(rule).collect::<Result<_, _>>()?);
    let requests: Vec<Request> = (0..REQUESTS).map(|at| request(scattered(at) % count, mix)).collect();
    let headers = HeaderMap::new();
    let start = Instant::now();
    let mut as_wanted = 0;
    for request in requests.iter().cycle().take(lookups) {
        let lookup = Lookup {
            host: Some(HOST),
            path: &request.path,
            query: None,
            method: &request.method,
            headers: &headers,
            listener: 0,
        };
        let found = match table.find(black_box(&lookup)) {
            Found::Route { .. } => Mix::Hit,
            Found::Nothing => Mix::NotFound,
            Found::MethodNotAllowed(_) => Mix::WrongMethod,
        };
        as_wanted += usize::from(found == mix);
    }
    let elapsed = start.elapsed();
    if as_wanted != lookups {
        return Err(format!("only {as_wanted} of {lookups} look-ups had the wanted result"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    Ok(elapsed.as_nanos() as f64 / lookups.max(1) as f64)
}

fn rule(number: usize) -> Result<Rule, String> {
    let (method, template) = template(number);
    Ok(Rule {
        host: HOST.parse::<HostPattern>()?,
        path: template.parse()?,
        methods: Some(Methods::parse([method])?),
        headers: Vec::new(),
        query: Vec::new(),
        listeners: None,
        priority: 0,
        route: u32::try_from(number).map_err(|error| error.to_string())?,
    })
}

/// Shape and nouns of a route: each shape has 1,600 pairs of nouns.
fn template(number: usize) -> (&'static str, String) {
    let (method, shape) = SHAPES.get(number % SHAPES.len()).copied().unwrap_or_default();
    let variant = number / SHAPES.len();
    let noun = |at: usize| NOUNS.get(at % NOUNS.len()).copied().unwrap_or_default();
    let first = shape.replacen('%', noun(variant), 1);
    (method, first.replacen('%', noun(variant / NOUNS.len() + variant + 1), 1))
}

fn request(route: usize, mix: Mix) -> Request {
    let (method, template) = template(route);
    let method = if mix == Mix::WrongMethod { "TRACE" } else { method };
    let values = ["octo-org", "hello-world", "1347", "98765"];
    let mut values = values.iter().cycle();
    let mut path = String::new();
    for segment in template.split('/').skip(1) {
        path.push('/');
        match segment {
            "{path...}" => path.push_str("src/main/lib.rs"),
            _ if segment.starts_with('{') => path.extend(values.next().copied()),
            // Wrong in the middle, where part of the way is gone.
            noun if mix == Mix::NotFound && NOUNS.contains(&noun) => path.push_str("nothing"),
            literal => path.push_str(literal),
        }
    }
    Request { method: Method::from_bytes(method.as_bytes()).unwrap_or_default(), path }
}

/// Numbers in no order that caches would like, the same in every run.
fn scattered(at: usize) -> usize {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}
