//! A look-up in the route table at 10, 1,000 and 10,000 routes, with the path shapes of a large public REST API.

use super::case::{Case, Work, scattered, text};
use http::{HeaderMap, Method};
use std::hint::black_box;
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

/// Every size, and every way a look-up can end.
pub fn cases() -> Vec<Case> {
    let of_size = |count| {
        [("hit", Mix::Hit), ("404", Mix::NotFound), ("405", Mix::WrongMethod)].map(|(name, mix)| {
            Case::new(format!("routes/{count}/{name}"), REQUESTS, move || look_up(count, mix))
        })
    };
    SIZES.into_iter().flat_map(of_size).collect()
}

fn look_up(count: usize, mix: Mix) -> Result<Work, String> {
    let table = Table::new((0..count).map(rule).collect::<Result<_, _>>()?);
    let requests: Vec<Request> = (0..REQUESTS).map(|at| request(scattered(at) % count, mix)).collect();
    let headers = HeaderMap::new();
    Ok(Work::new(move |at| {
        let Some(request) = requests.get(at % REQUESTS) else { return };
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
        assert!(found == mix);
    }))
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
        route: u32::try_from(number).map_err(text)?,
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
