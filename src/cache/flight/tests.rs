use super::*;
use crate::cache::Facts;
use crate::exchange::ResponseHead;
use bytes::Bytes;
use http::header::ACCEPT_LANGUAGE;
use http::{HeaderValue, Response};
use std::sync::atomic::{AtomicUsize, Ordering};

const LONG: Duration = Duration::from_secs(30);

fn head() -> ResponseHead {
    Response::new(()).into_parts().0
}

fn stored(text: &'static str) -> Arc<Stored<Body>> {
    Arc::new(Stored::new(
        head(),
        Body::whole(Bytes::from_static(text.as_bytes())),
        Facts::default(),
        "https://a.b/",
    ))
}

fn lead(flights: &Arc<Flights>, key: &[u8]) -> Lead {
    match flights.join(key) {
        Joined::Lead(lead) => lead,
        joined => panic!("{joined:?}"),
    }
}

fn follow(flights: &Arc<Flights>, key: &[u8]) -> Follow {
    match flights.join(key) {
        Joined::Follow(follow) => follow,
        joined => panic!("{joined:?}"),
    }
}

async fn text(followed: Followed) -> String {
    let Followed::Answer(stored) = followed else { panic!("{followed:?}") };
    let bytes = stored.body.reader(0, u64::MAX).unwrap().next().await.unwrap().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn one_asks_and_all_get_the_answer_also_who_comes_while_its_body_does() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let (early, other) = (follow(&flights, b"a"), lead(&flights, b"b"));
    assert!(flights.lead(b"a").is_none(), "somebody asks already");
    let early = tokio::spawn(async move { text(early.wait(&HeaderMap::new(), LONG).await).await });
    tokio::task::yield_now().await;
    leading.answered(stored("yes"));
    assert_eq!(early.await.unwrap(), "yes");
    assert_eq!(text(follow(&flights, b"a").wait(&HeaderMap::new(), LONG).await).await, "yes");
    let late = follow(&flights, b"a");
    drop(leading);
    assert_eq!(text(late.wait(&HeaderMap::new(), LONG).await).await, "yes");
    assert_eq!(flights.under_way(), 1);
    drop(other);
    assert_eq!(flights.under_way(), 0);
    lead(&flights, b"a");
}

#[tokio::test]
async fn an_answer_for_other_fields_is_not_given() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let follow = follow(&flights, b"a");
    let mut other = Arc::into_inner(stored("de")).unwrap();
    other.vary = Box::new([(ACCEPT_LANGUAGE, Some(HeaderValue::from_static("de")))]);
    leading.answered(Arc::new(other));
    assert!(matches!(follow.wait(&HeaderMap::new(), LONG).await, Followed::OtherVariant(_)));
}

#[tokio::test]
async fn when_the_leader_gives_up_the_next_leads_one_after_the_other() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut waiting = Vec::new();
    for _ in 0..500 {
        let (follow, asked, answered) = (follow(&flights, b"a"), asked.clone(), answered.clone());
        waiting.push(tokio::spawn(async move {
            match follow.wait(&HeaderMap::new(), LONG).await {
                Followed::Lead(lead) => {
                    // The first ten give up as well.
                    if asked.fetch_add(1, Ordering::SeqCst) < 10 {
                        return;
                    }
                    tokio::task::yield_now().await;
                    lead.answered(stored("at last"));
                }
                answer => {
                    assert_eq!(text(answer).await, "at last");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
    }
    tokio::task::yield_now().await;
    drop(leading);
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!((asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (11, 489));
    assert_eq!(flights.under_way(), 0);
}

#[tokio::test]
async fn a_follower_that_leaves_when_it_is_its_turn_passes_it_on() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let (first, second) = (follow(&flights, b"a"), follow(&flights, b"a"));
    let first = tokio::spawn(async move {
        first.wait(&HeaderMap::new(), LONG).await;
    });
    tokio::task::yield_now().await;
    let second =
        tokio::spawn(async move { matches!(second.wait(&HeaderMap::new(), LONG).await, Followed::Lead(_)) });
    tokio::task::yield_now().await;
    drop(leading);
    // Told, but it never runs again.
    first.abort();
    assert!(first.await.is_err());
    assert!(tokio::time::timeout(Duration::from_secs(10), second).await.unwrap().unwrap());
    assert_eq!(flights.under_way(), 0);
}

#[tokio::test]
async fn followers_that_leave_leave_nothing() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let gone = follow(&flights, b"a");
    drop(leading);
    assert_eq!(flights.under_way(), 1);
    drop(gone);
    assert_eq!(flights.under_way(), 0);
    let leading = lead(&flights, b"a");
    let waits = follow(&flights, b"a");
    drop(leading);
    // Who comes takes the place before who waits has noticed.
    let leading = lead(&flights, b"a");
    let waits = tokio::spawn(async move { text(waits.wait(&HeaderMap::new(), LONG).await).await });
    tokio::task::yield_now().await;
    leading.answered(stored("new"));
    assert_eq!(waits.await.unwrap(), "new");
}

#[tokio::test]
async fn what_is_not_for_others_is_remembered_until_it_is() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let waits = follow(&flights, b"a");
    leading.declined();
    assert!(matches!(waits.wait(&HeaderMap::new(), LONG).await, Followed::Alone));
    assert!(matches!(flights.join(b"a"), Joined::Alone));
    assert!(matches!(flights.join(b"b"), Joined::Lead(_)));
    flights.accept(b"a");
    assert!(matches!(flights.join(b"a"), Joined::Lead(_)));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_it_may() {
    let flights = Arc::new(Flights::default());
    let leading = lead(&flights, b"a");
    let begin = tokio::time::Instant::now();
    let waited = follow(&flights, b"a").wait(&HeaderMap::new(), Duration::from_secs(5)).await;
    assert!(matches!(waited, Followed::Alone));
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
    drop(leading);
    assert_eq!(flights.under_way(), 0);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut shard = Shard::default();
    (0..10 * DECLINED as u64).for_each(|hash| shard.decline(hash));
    assert!(shard.declined.len() <= DECLINED && shard.is_declined(10 * DECLINED as u64 - 1));
}
