//! What is asked of the table.

use http::{HeaderMap, Method};

/// What is known of a request when its route is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// As [`host_key`](crate::value::host_key) gives it.
    pub host: Option<&'a str>,
    /// In normal form, without query.
    pub path: &'a str,
    /// Raw, without `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Number of the listener the request came through.
    pub listener: u16,
}
