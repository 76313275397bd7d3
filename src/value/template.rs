//! `${…}` templates: compiled when the configuration is read, filled in while a request runs.

use super::text::text_value;
use http::HeaderName;
use std::fmt;
use std::str::FromStr;

/// Text with places that are filled in from the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
    written: String,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A path parameter, and its number once [`Template::bind`] has found it.
    Path(String, u8),
    /// The first value of a query parameter, as sent.
    Query(String),
    /// The first value of a request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// The client's address.
    ClientIp,
    /// The request id.
    RequestId,
    /// Name of the consumer, or what the credential calls its bearer.
    Consumer,
    /// A claim of the token, by its path.
    Claim(String),
    /// The host the client asked for, without port.
    Host,
    /// The request method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// Name of the API.
    Api,
    /// Name of the route.
    Route,
}

const SOURCES: &str = "path.NAME, query.NAME, header.NAME, cookie.NAME, claims.PATH, consumer, client_ip, request_id, host, method, scheme, api, route";

impl Template {
    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The whole text when nothing needs filling in.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The same template for a route of this API with these path parameters: parameters get their numbers, names become
    /// text.
    ///
    /// # Errors
    /// The message names a path parameter that the route's pattern does not have.
    pub fn bind(&self, api: &str, route: &str, parameters: &[&str]) -> Result<Template, String> {
        let bind = |part: &Part| match part {
            Part::Path(name, _) => match parameters.iter().position(|parameter| parameter == name) {
                Some(number) => Ok(Part::Path(name.clone(), u8::try_from(number).unwrap_or(u8::MAX))),
                None => Err(unknown_parameter(name, parameters)),
            },
            Part::Api => Ok(Part::Text(api.to_owned())),
            Part::Route => Ok(Part::Text(route.to_owned())),
            other => Ok(other.clone()),
        };
        let bound = self.parts.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        Ok(Template { parts: join_texts(bound), written: self.written.clone() })
    }
}

fn unknown_parameter(name: &str, parameters: &[&str]) -> String {
    let known = match parameters {
        [] => "the path has no parameters".to_owned(),
        _ => format!(
            "the path has {}",
            parameters.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    format!("`${{path.{name}}}` names no parameter of this route's path\nhelp: {known}")
}

/// Adjacent texts become one, so that a template without variables is one constant.
fn join_texts(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, part) => joined.push(part),
        }
    }
    joined
}

impl FromStr for Template {
    type Err = String;
    fn from_str(written: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = written;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{")));
                rest = after;
                continue;
            }
            parts.push(Part::Text(before.to_owned()));
            let (name, behind) = after.split_once('}').ok_or_else(|| {
                format!(
                    "`${{{after}` is not closed\nhelp: end it with `}}`, or write `$${{` for the text `${{`"
                )
            })?;
            parts.push(name.parse()?);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Template { parts: join_texts(parts), written: written.to_owned() })
    }
}

impl FromStr for Part {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("`${{{name}}}` is not known here\nhelp: use one of {SOURCES}");
        let (source, key) = name.split_once('.').unwrap_or((name, ""));
        match (source, key) {
            ("client_ip", "") => Ok(Part::ClientIp),
            ("request_id", "") => Ok(Part::RequestId),
            ("consumer", "") => Ok(Part::Consumer),
            ("host", "") => Ok(Part::Host),
            ("method", "") => Ok(Part::Method),
            ("scheme", "") => Ok(Part::Scheme),
            ("api", "") => Ok(Part::Api),
            ("route", "") => Ok(Part::Route),
            (_, "") => Err(unknown()),
            ("path", key) => Ok(Part::Path(key.to_owned(), u8::MAX)),
            ("query", key) => Ok(Part::Query(key.to_owned())),
            ("cookie", key) => Ok(Part::Cookie(key.to_owned())),
            ("claims", key) => Ok(Part::Claim(key.to_owned())),
            ("header", key) => HeaderName::from_str(key)
                .map(Part::Header)
                .map_err(|_| format!("`{key}` in `${{{name}}}` is not a header name")),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

text_value!(Template, "Template", pattern: r"^[\s\S]*$", "text, in which `${path.id}`, `${header.x-name}` and the like are filled in");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_cut_into_parts() {
        let template: Template = "/o/${path.id}?u=${query.u}".parse().unwrap();
        let bound = template.bind("shop", "read", &["x", "id"]).unwrap();
        let path = |part: &str| Part::Text(part.into());
        assert_eq!(
            bound.parts(),
            [path("/o/"), Part::Path("id".into(), 1), path("?u="), Part::Query("u".into())]
        );
    }

    #[test]
    fn names_known_at_load_become_text() {
        let template: Template = "${api}.${route}$${x}".parse().unwrap();
        assert_eq!(template.bind("shop", "read", &[]).unwrap().constant(), Some("shop.read${x}"));
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        for bad in ["${", "${x", "${}", "${nope}", "${path}", "${header.a b}", "${query.}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
        let template: Template = "${path.id}".parse().unwrap();
        assert!(template.bind("a", "r", &["ident"]).unwrap_err().contains("`ident`"));
    }
}
