use super::*;
use crate::cache::Facts;
use crate::cache::purge::What;
use http::Response;
use http::header::{ACCEPT_LANGUAGE, ETAG};

const LONG: Duration = Duration::from_secs(30);

fn key(text: &str) -> Key {
    Key { text: text.as_bytes().into() }
}

fn answer(body: Body) -> Stored<Body> {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(ETAG, HeaderValue::from_static("\"1\""));
    let facts = Facts { received: now(), lifetime: 60_000, ..Facts::default() };
    let mut stored = Stored::new(head, body, facts, "https://a.b/c");
    stored.tags = Box::new(["tag".into()]);
    stored
}

fn ask(store: &Arc<Store>, key: &Key) -> Ask {
    match store.join(key) {
        Joined::Ask(ask) => ask,
        Joined::Follow(follow) => panic!("{follow:?}"),
    }
}

fn fill(store: &Arc<Store>, ask: Ask) -> Fill {
    let (body, filler) = store.body(1 << 20);
    ask.answered(answer(body), filler)
}

fn hit(store: &Store, key: &Key) -> Option<Arc<Stored<Body>>> {
    match store.look_up(key, &HeaderMap::new()) {
        Look::Hit(stored) => Some(stored),
        _ => None,
    }
}

async fn text(stored: &Stored<Body>) -> String {
    let mut reader = stored.body.reader(0, u64::MAX).unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = reader.next().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_ask_at_once_and_the_origin_is_asked_once() {
    let (store, key) = (Store::new(64 << 20), key("a"));
    let begin = Arc::new(tokio::sync::Barrier::new(500));
    let asked = Arc::new(AtomicU64::new(0));
    let mut requests = Vec::new();
    for _ in 0..500 {
        let (store, key, begin, asked) = (store.clone(), key.clone(), begin.clone(), asked.clone());
        requests.push(tokio::spawn(async move {
            begin.wait().await;
            if let Some(stored) = hit(&store, &key) {
                return text(&stored).await;
            }
            let ask = match store.join(&key) {
                Joined::Ask(ask) => ask,
                Joined::Follow(follow) => match follow.wait(&HeaderMap::new(), LONG).await {
                    Followed::Answer(stored) => return text(&stored).await,
                    Followed::Ask(ask) => ask,
                },
            };
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut fill = fill(&store, ask);
            for part in 0..100 {
                fill.push(Bytes::from(format!("part {part} ")));
                tokio::task::yield_now().await;
            }
            let stored = fill.stored().clone();
            assert!(fill.finish());
            text(&stored).await
        }));
    }
    let expected: String = (0..100).map(|part| format!("part {part} ")).collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), expected);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(text(&hit(&store, &key).unwrap()).await, expected);
}

#[tokio::test]
async fn those_who_want_another_variant_ask_for_it_together() {
    let (store, key) = (Store::new(64 << 20), key("a"));
    let first = ask(&store, &key);
    let mut waiting = Vec::new();
    let asked = Arc::new(AtomicU64::new(0));
    for number in 0..100 {
        let Joined::Follow(follow) = store.join(&key) else { panic!("nobody asks") };
        let (store, asked) = (store.clone(), asked.clone());
        let language = ["de", "fr", "en"][number % 3];
        let headers = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static(language))]);
        waiting.push(tokio::spawn(async move {
            let stored = match follow.wait(&headers, LONG).await {
                Followed::Answer(stored) => stored,
                Followed::Ask(ask) => {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    speak(&store, ask, language)
                }
            };
            assert_eq!(text(&stored).await, language);
        }));
    }
    speak(&store, first, "de");
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!((asked.load(Ordering::SeqCst), store.memory.held().objects), (2, 3));
    assert_eq!(store.flights.under_way(), 0);
}

fn speak(store: &Arc<Store>, ask: Ask, language: &'static str) -> Arc<Stored<Body>> {
    let (body, filler) = store.body(1 << 20);
    let mut stored = answer(body);
    stored.vary = Box::new([(ACCEPT_LANGUAGE, Some(HeaderValue::from_static(language)))]);
    let mut fill = ask.answered(stored, filler);
    fill.push(Bytes::from_static(language.as_bytes()));
    let stored = fill.stored().clone();
    assert!(fill.finish());
    stored
}

#[tokio::test]
async fn a_purge_meets_answers_on_their_way() {
    for (how, when) in [(How::Remove, 0), (How::Remove, 1), (How::Expire, 0), (How::Invalidate, 1)] {
        let (store, key) = (Store::new(64 << 20), key("a"));
        let purge = || store.purge(Purge { what: What::Tag("tag".into()), how });
        let ask = ask(&store, &key);
        if when == 0 {
            purge();
        }
        let mut fill = fill(&store, ask);
        if when == 1 {
            purge();
        }
        fill.push(Bytes::from_static(b"old"));
        assert_eq!(fill.finish(), how != How::Remove);
        match hit(&store, &key) {
            Some(stored) => assert_eq!(
                (stored.is_expired(), stored.is_invalid()),
                (how == How::Expire, how == How::Invalidate)
            ),
            None => assert_eq!(how, How::Remove),
        }
    }
}

#[tokio::test]
async fn what_breaks_or_is_too_long_is_not_kept_and_what_was_there_stays() {
    let (store, key) = (Store::new(64 << 20), key("a"));
    let mut first = fill(&store, ask(&store, &key));
    first.push(Bytes::from_static(b"first"));
    assert!(first.finish());
    let mut broken = fill(&store, ask(&store, &key));
    broken.push(Bytes::from_static(b"seco"));
    drop(broken);
    assert_eq!(text(&hit(&store, &key).unwrap()).await, "first");
    let mut long = fill(&store, ask(&store, &key));
    let mut reader = long.stored().body.reader(0, u64::MAX).unwrap();
    for _ in 0..20 {
        long.push(Bytes::from(vec![0; 100_000]));
        assert!(long.room().await);
        while let crate::cache::Taken::Bytes(_) = reader.take() {}
    }
    assert!(!long.is_kept() && !long.finish());
    assert_eq!(reader.next().await, None);
    assert_eq!(store.coming.held(), 0);
}

#[tokio::test]
async fn a_validated_answer_has_another_head_and_the_same_body() {
    let (store, key) = (Store::new(64 << 20), key("a"));
    let mut first = fill(&store, ask(&store, &key));
    first.push(Bytes::from_static(b"body"));
    first.finish();
    let stale = hit(&store, &key).unwrap();
    let renewing = store.renew(&key).unwrap();
    assert!(store.renew(&key).is_none(), "once at a time");
    let Joined::Follow(follow) = store.join(&key) else { panic!("nobody asks") };
    let mut renewed = answer(stale.body.clone());
    renewed.head.headers.insert("x", HeaderValue::from_static("new"));
    renewing.keep(renewed);
    let Followed::Answer(got) = follow.wait(&HeaderMap::new(), LONG).await else { panic!("no answer") };
    assert_eq!((text(&got).await.as_str(), got.head.headers["x"].as_bytes()), ("body", &b"new"[..]));
    assert!(Arc::ptr_eq(&got, &hit(&store, &key).unwrap()));
    assert_eq!(store.memory.held().objects, 1);
}

#[tokio::test]
async fn nobody_waits_for_what_was_not_for_others_until_an_answer_is_kept() {
    let (store, key) = (Store::new(64 << 20), key("a"));
    ask(&store, &key).declined();
    let one = ask(&store, &key);
    let other = ask(&store, &key);
    assert!(!one.leads() && !other.leads());
    fill(&store, one).finish();
    assert!(ask(&store, &key).leads());
}

#[test]
fn stored_fields_hold_on_to_no_buffer() {
    let buffer = Bytes::from(vec![b'x'; 1 << 16]);
    let store = Store::new(64 << 20);
    let mut stored = answer(Body::whole(Bytes::new()));
    stored.head.headers.insert("x", HeaderValue::from_maybe_shared(buffer.slice(5..9)).unwrap());
    stored.head.headers.append("x", HeaderValue::from_static("second"));
    let kept = ask(&store, &key("a")).keep(stored);
    assert!(buffer.is_unique());
    assert_eq!(kept.head.headers.get_all("x").iter().collect::<Vec<_>>(), ["xxxx", "second"]);
}
