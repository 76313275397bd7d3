//! `respond`: an answer made here, from the configuration (RT-10).

use super::to::Respond as Rule;
use crate::build::{Bind, Build, Value, problem};
use crate::exchange::{Exchange, RequestHead};
use crate::grpc::Dialect;
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
    Json(Vec<Piece>),
}

/// A piece of a JSON body.
enum Piece {
    /// As it is.
    Raw(String),
    /// A text that is filled in.
    Text(Template),
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

    /// The answer; that of a gRPC call is a status.
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
            Body::Json(pieces) => {
                let mut json = String::with_capacity(256);
                pieces.iter().for_each(|piece| piece.write(request, x, &mut json));
                json.into()
            }
        };
        let reply = Reply { status: self.status, headers, body, reason: None, problem: None };
        match Dialect::of_request(&request.method, &request.headers) {
            None => reply,
            Some(dialect) => reply.for_call(dialect),
        }
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
    let mut pieces = Vec::new();
    compile(&json.value, json.at, bind, &mut pieces)?;
    match pieces.as_slice() {
        [Piece::Raw(whole)] => Ok(Body::Fixed(Bytes::copy_from_slice(whole.as_bytes()))),
        _ => Ok(Body::Json(pieces)),
    }
}

/// Cuts a JSON value into what is always the same and the texts with `${` in them.
fn compile(value: &serde_json::Value, at: At, bind: Bind<'_>, pieces: &mut Vec<Piece>) -> Result<(), Issue> {
    match value {
        serde_json::Value::String(text) if text.contains("${") => {
            let template: Template =
                text.parse().map_err(|message: String| problem(Code::BAD_TEMPLATE, &message, at))?;
            pieces.push(Piece::Text(bind.template(&Spanned { value: template, at })?));
        }
        serde_json::Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                push_raw(pieces, if number == 0 { "[" } else { "," });
                compile(item, at, bind, pieces)?;
            }
            push_raw(pieces, if items.is_empty() { "[]" } else { "]" });
        }
        serde_json::Value::Object(members) => {
            for (number, (key, member)) in members.iter().enumerate() {
                push_raw(pieces, if number == 0 { "{" } else { "," });
                push_raw(pieces, &format!("{}:", serde_json::Value::from(key.as_str())));
                compile(member, at, bind, pieces)?;
            }
            push_raw(pieces, if members.is_empty() { "{}" } else { "}" });
        }
        plain => push_raw(pieces, &plain.to_string()),
    }
    Ok(())
}

fn push_raw(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Raw(raw)) => raw.push_str(text),
        _ => pieces.push(Piece::Raw(text.to_owned())),
    }
}

impl Piece {
    fn write(&self, request: &RequestHead, x: &Exchange, out: &mut String) {
        match self {
            Piece::Raw(raw) => out.push_str(raw),
            Piece::Text(template) => {
                let mut text = String::new();
                x.render(template, request, &mut text);
                out.push_str(&serde_json::Value::from(text).to_string());
            }
        }
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
