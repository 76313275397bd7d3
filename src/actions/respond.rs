//! `respond`: an answer made here, from the configuration (RT-10).

use super::to::Respond as Rule;
use crate::build::{Bind, Build, Value};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::{Reply, escape_html};
use crate::value::{At, Code, Issue, Issues, Spanned, Template};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};

/// Largest file that can be an answer.
const MAX_FILE: u64 = 16 << 20;

/// A fixed answer.
pub struct Respond {
    status: u16,
    headers: Vec<(HeaderName, Value)>,
    content_type: Option<HeaderValue>,
    body: Body,
}

enum Body {
    Fixed(Bytes),
    Text(Template),
    Html(Template),
    Json(serde_json::Value, Bound),
}

/// Texts inside a JSON body that are filled in, as written and compiled.
struct Bound {
    templates: Vec<(String, Template)>,
}

impl Respond {
    /// Compiles the rule and reads its file.
    pub fn new(rule: &Rule, at: At, bind: Bind<'_>, build: &Build, issues: &mut Issues) -> Option<Respond> {
        let status = rule.status.as_ref().map_or(200, |status| status.value);
        if !(200..=599).contains(&status) {
            let at = rule.status.as_ref().map_or(at, |status| status.at);
            issues.push(
                Issue::new(Code::BAD_VALUE, format!("{status} cannot be the status of an answer"))
                    .at(at)
                    .help("use 200 to 599"),
            );
        }
        let headers = rule.headers.iter();
        let headers: Vec<_> = headers
            .filter_map(|(key, value)| Some((key.0.clone(), issues.take(bind.value(value))?)))
            .collect();
        let (body, content_type) = issues.take(body(rule, at, bind, build))?;
        let typed = headers.iter().any(|(name, _)| *name == CONTENT_TYPE);
        let content_type = content_type.filter(|_| !typed).map(HeaderValue::from_static);
        Some(Respond { status, headers, content_type, body })
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The answer.
    pub fn reply(&self, request: &RequestHead, x: &Exchange) -> Reply {
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        headers.extend(self.content_type.clone().map(|value| (CONTENT_TYPE, value)));
        headers.extend(
            self.headers
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.for_request(request, x)?))),
        );
        let body = match &self.body {
            Body::Fixed(bytes) => bytes.clone(),
            Body::Text(template) => {
                let mut text = String::with_capacity(128);
                x.render(template, request, &mut text);
                text.into()
            }
            Body::Html(template) => {
                let mut text = String::with_capacity(128);
                x.render_escaped(template, request, &mut text, |_, value, out| {
                    out.push_str(&escape_html(value))
                });
                text.into()
            }
            Body::Json(value, bound) => {
                let mut value = value.clone();
                fill(&mut value, bound, request, x);
                value.to_string().into()
            }
        };
        Reply { status: self.status, headers, body, reason: None, problem: None }
    }
}

type Made = (Body, Option<&'static str>);

fn body(rule: &Rule, at: At, bind: Bind<'_>, build: &Build) -> Result<Made, Issue> {
    match (&rule.text, &rule.html, &rule.json, &rule.file) {
        (None, None, None, None) => Ok((Body::Fixed(Bytes::new()), None)),
        (Some(text), None, None, None) => {
            Ok((text_body(text, bind, Body::Text)?, Some("text/plain; charset=utf-8")))
        }
        (None, Some(html), None, None) => {
            Ok((text_body(html, bind, Body::Html)?, Some("text/html; charset=utf-8")))
        }
        (None, None, Some(json), None) => Ok((json_body(json, bind)?, Some("application/json"))),
        (None, None, None, Some(file)) => {
            Ok((Body::Fixed(build.file(file, MAX_FILE)?.into()), Some(media_type(&file.value))))
        }
        _ => Err(Issue::new(Code::CONFLICT, "an answer has one body")
            .at(at)
            .help("write one of text, html, json, file")),
    }
}

fn text_body(text: &Spanned<Template>, bind: Bind<'_>, filled: fn(Template) -> Body) -> Result<Body, Issue> {
    let bound = bind.template(text)?;
    Ok(match bound.constant() {
        Some(constant) => Body::Fixed(Bytes::copy_from_slice(constant.as_bytes())),
        None => filled(bound),
    })
}

fn json_body(json: &Spanned<serde_json::Value>, bind: Bind<'_>) -> Result<Body, Issue> {
    let mut templates = Vec::new();
    collect(&json.value, json.at, bind, &mut templates)?;
    if templates.is_empty() {
        return Ok(Body::Fixed(json.value.to_string().into()));
    }
    Ok(Body::Json(json.value.clone(), Bound { templates }))
}

/// Compiles every text with `${` in it.
fn collect(
    value: &serde_json::Value,
    at: At,
    bind: Bind<'_>,
    found: &mut Vec<(String, Template)>,
) -> Result<(), Issue> {
    match value {
        serde_json::Value::String(text) if text.contains("${") => {
            let template = text
                .parse::<Template>()
                .map_err(|message| crate::build::problem(Code::BAD_TEMPLATE, &message, at))?;
            found.push((text.clone(), bind.template(&Spanned { value: template, at })?));
            Ok(())
        }
        serde_json::Value::Array(items) => items.iter().try_for_each(|item| collect(item, at, bind, found)),
        serde_json::Value::Object(members) => {
            members.values().try_for_each(|member| collect(member, at, bind, found))
        }
        _ => Ok(()),
    }
}

fn fill(value: &mut serde_json::Value, bound: &Bound, request: &RequestHead, x: &Exchange) {
    match value {
        serde_json::Value::String(text) => {
            if let Some((_, template)) = bound.templates.iter().find(|(written, _)| written == text) {
                text.clear();
                x.render(template, request, text);
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| fill(item, bound, request, x)),
        serde_json::Value::Object(members) => {
            members.values_mut().for_each(|member| fill(member, bound, request, x))
        }
        _ => {}
    }
}

fn media_type(path: &std::path::Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/vnd.microsoft.icon",
        "xml" => "application/xml",
        "yaml" | "yml" => "application/yaml",
        _ => "application/octet-stream",
    }
}
