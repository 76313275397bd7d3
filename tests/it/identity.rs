//! Who calls, end to end: a real gateway, a real identity provider beside it, and every byte in between.

mod asked;
mod explained;
mod guard;
mod keys;
mod reloaded;
mod requests;
mod secrets;
mod tokens;

use crate::harness::{Client, DEADLINE, Gateway, Idp, Plan, Response, Upstream, assert_eventually};

/// Everything goes to `app`, for callers that the one provider `id` accepts; `said` is what it is.
fn one_provider(said: &str) -> String {
    format!(
        r#"
version: 1
listeners: {{ web: {{ bind: "127.0.0.1:0" }} }}
auth: {{ id: {said} }}
consumers: {{ acme: {{ tags: gold, ids: acme-at-the-issuer }} }}
upstreams: {{ app: {{ targets: ["{{{{app}}}}"], health: none }} }}
apis:
  shop:
    auth: id
    routes:
      public: {{ match: /public, auth: public, to: app }}
      all: {{ match: "/**", to: app }}
"#
    )
}

/// A gateway in front of an echo, with tokens of this identity provider; `said` are further settings of `jwt`.
fn with_tokens_of(idp: &Idp, app: &Upstream, said: &str) -> Gateway {
    let jwt = format!(
        "{{ jwt: {{ issuer: \"{}\", audience: api, algorithms: [ES256, RS256, EdDSA]{said} }} }}",
        idp.issuer()
    );
    Plan::new(&one_provider(&jwt)).with("app", app.addr()).start()
}

/// Waits until the gateway has said this in its log.
fn assert_logged(gateway: &Gateway, what: &str) {
    assert_eventually(DEADLINE, &format!("`{what}` in the log"), || gateway.stderr().contains(what));
}

/// GET with a bearer token over a new connection.
fn get(gateway: &Gateway, target: &str, token: &str) -> Response {
    get_over(&mut gateway.client(), target, token)
}

/// GET with a bearer token over this connection.
fn get_over(client: &mut Client, target: &str, token: &str) -> Response {
    client.request("GET", target).header("authorization", &format!("Bearer {token}")).send()
}

/// Asserts that a request was refused with this status and problem code, that the connection stays open, and that a 401
/// says what credentials are asked for.
#[track_caller]
fn assert_refused(response: &Response, status: u16, code: &str) {
    let told = (response.status, response.problem_code(), response.kept_alive);
    assert_eq!(told, (status, code.to_owned(), true), "{}", response.text());
    if status == 401 {
        assert!(response.header("www-authenticate").is_some(), "{:?}", response.headers);
    }
}
