//! `redirect`: 301, 302, 303, 307 or 308 with a templated address (RT-11).

use super::to::Redirect as Rule;
use crate::build::Bind;
use crate::exchange::{Exchange, RequestHead, authority, host};
use crate::reply::{Kind, Problem, Reply};
use crate::value::{Issue, Spanned, Template};
use bytes::Bytes;
use http::HeaderValue;
use http::header::LOCATION;

/// A redirect.
pub struct Redirect {
    status: u16,
    /// `None`: the same address over https.
    to: Option<Template>,
    keep_query: bool,
}

impl Redirect {
    /// Binds its template.
    ///
    /// # Errors
    /// The template does not fit the route.
    pub fn new(rule: &Spanned<Rule>, bind: Bind<'_>) -> Result<Redirect, Issue> {
        let to =
            rule.value.to.clone().map(|to| bind.template(&Spanned { value: to, at: rule.at })).transpose()?;
        Ok(Redirect { status: rule.value.status, to, keep_query: rule.value.keep_query })
    }

    /// The answer.
    pub fn reply(&self, request: &RequestHead, x: &Exchange) -> Reply {
        if self.to.is_none() && authority(request).is_none() {
            return Problem::from(Kind::BAD_HOST).reply(request, x);
        }
        let location = HeaderValue::from_maybe_shared(Bytes::from(self.location(request, x)));
        let headers = location.map(|location| vec![(LOCATION, location)]).unwrap_or_default();
        Reply { status: self.status, headers, body: Bytes::new(), reason: None, problem: None }
    }

    fn location(&self, request: &RequestHead, x: &Exchange) -> String {
        let mut location = String::with_capacity(128);
        match &self.to {
            Some(template) => x.render(template, request, &mut location),
            None => location.extend([
                "https://",
                host(authority(request).unwrap_or_default()),
                request.uri.path(),
            ]),
        }
        // Two slashes in front, of either kind, would be read as another host (WHATWG URL, "relative state").
        let path = location.trim_start_matches(['/', '\\']);
        if location.len() - path.len() > 1 && self.to.as_ref().is_some_and(names_no_host) {
            location = format!("/{path}");
        }
        if let Some(query) = request.uri.query().filter(|_| self.keep_query) {
            location.extend(["?", query]);
        }
        location
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        match &self.to {
            Some(to) => format!("redirect {} {to}", self.status),
            None => format!("redirect {} https", self.status),
        }
    }
}

/// Whether the template itself does not begin with `//`.
fn names_no_host(template: &Template) -> bool {
    !matches!(template.parts().first(), Some(crate::value::Part::Text(text)) if text.starts_with("//"))
}
