//! Upstreams in trouble: what clients see of it, what is tried again, and how little a dead upstream is asked.

mod breaker;
mod faults;
mod sticky;
mod targets;

use crate::harness::{Gateway, Plan, Request, Upstream, Wire};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything goes to `app`, of which `upstream` says the rest; `route` is added to the route.
fn config(upstream: &str, route: &str) -> String {
    format!(
        r#"
version: 1
listeners: {{ web: {{ bind: "127.0.0.1:0", protocols: [http/1.1, h2c] }} }}
upstreams: {{ app: {{ {upstream} }} }}
apis:
  shop:
    auth: public
    timeouts: {{ connect: 5s, response: 10s, idle: 10s }}
    routes: {{ all: {{ match: "/**", to: app, {route} }} }}
"#
    )
}

fn start(upstream: &str, route: &str) -> Gateway {
    Plan::new(&config(upstream, route)).start()
}

/// A server that reads a request and then does what `script` says, and how many requests it has read.
fn raw(script: impl Fn(&mut Wire) -> io::Result<()> + Send + Sync + 'static) -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upstream = Upstream::raw(move |mut wire| {
        while let Some(mut request) = Request::read_head(&mut wire)? {
            request.read_body(&mut wire)?;
            count.fetch_add(1, Ordering::SeqCst);
            script(&mut wire)?;
        }
        Ok(())
    });
    (upstream, asked)
}
