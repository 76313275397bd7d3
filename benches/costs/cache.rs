//! Answers that are kept, in memory: found, not found, put, joined.

use super::case::{Case, Work, scattered};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Response};
use std::hint::black_box;
use std::sync::Arc;
use tollgate::cache::control::Directives;
use tollgate::cache::policy::{Verdict, judge};
use tollgate::cache::{Body, Facts, Joined, Key, Look, Store, Stored};

const OBJECTS: usize = 10_000;
const TIMES: usize = 2_000;
const NOW: u64 = 1_790_000_000_000;

/// What a request to a route with a cache asks of it.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("cache/hit", TIMES, || Ok(look_up(0))),
        Case::new("cache/miss", TIMES, || Ok(look_up(OBJECTS))),
        Case::new("cache/body", TIMES, || {
            let body = Body::whole(Bytes::from(vec![1; 1000]));
            Ok(Work::new(move |_| drop(black_box(body.reader(0, u64::MAX).map(|mut reader| reader.take())))))
        }),
        Case::new("cache/fill", TIMES, || Ok(fill())),
    ]
}

/// As a request does: looked up, and judged.
fn look_up(from: usize) -> Work {
    let store = Store::new(1 << 30);
    (0..OBJECTS).for_each(|at| keep(&store, &key(at), at));
    let keys: Vec<Key> = (from..from + OBJECTS).map(key).collect();
    let headers = HeaderMap::new();
    Work::new(move |at| {
        let Some(key) = keys.get(scattered(at) % OBJECTS) else { return };
        match store.look_up(black_box(key), &headers) {
            Look::Hit(stored) => {
                let verdict = judge(&stored, &Directives::default(), NOW + 1);
                assert!(from == 0 && matches!(verdict, Verdict::Fresh { .. }));
            }
            _ => assert!(from > 0),
        }
    })
}

/// As the first request for something does.
fn fill() -> Work {
    let store = Store::new(1 << 28);
    Work::new(move |at| keep(&store, &key(at), at))
}

fn keep(store: &Arc<Store>, key: &Key, at: usize) {
    let Joined::Ask(ask) = store.join(key) else { return };
    let (body, filler) = store.body(1 << 20);
    let mut fill = ask.answered(stored(at, body), filler);
    fill.push(Bytes::from(vec![1; 1000]));
    assert!(fill.finish());
}

fn key(at: usize) -> Key {
    let text = format!("shop.read https api.example.com /v2/orders/{at}?expand=lines");
    Key { text: text.into_bytes().into() }
}

fn stored(at: usize, body: Body) -> Stored<Body> {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers.insert(ETAG, HeaderValue::from_static("\"33a64df551425fcc55e4d42a148795d9\""));
    let facts = Facts { received: NOW, lifetime: 60_000, ..Facts::default() };
    Stored::new(head, body, facts, &format!("https://api.example.com/v2/orders/{at}?expand=lines"))
}
