use super::*;
use crate::cache::Facts;
use crate::cache::purge::{How, What};
use bytes::Bytes;
use http::header::ACCEPT_LANGUAGE;
use http::{HeaderValue, Response};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn key(text: &str) -> &[u8] {
    text.as_bytes()
}

fn stored(url: &str, len: usize) -> Stored<Body> {
    let facts = Facts { received: 1_000, lifetime: 1_000_000, ..Facts::default() };
    Stored::new(Response::new(()).into_parts().0, Body::whole(Bytes::from(vec![7; len])), facts, url)
}

/// What this thread has worked, whatever else the machine does.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn url(number: usize) -> String {
    format!("https://a.b/{}/{number}", number % 10)
}

fn filled(memory: &Memory, objects: usize, tag: impl Fn(usize) -> Vec<String>) {
    for number in 0..objects {
        let mut stored = stored(&url(number), 100);
        stored.tags = tag(number).into_iter().map(String::into_boxed_str).collect();
        assert!(memory.put(key(&url(number)), Arc::new(stored), 2_000));
    }
}

fn has(memory: &Memory, text: &str) -> bool {
    matches!(memory.get(key(text), &HeaderMap::new()), Look::Hit(_))
}

fn language(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_str(value).unwrap())])
}

#[test]
fn the_newest_answer_that_the_request_selects_is_given() {
    let memory = Memory::new(MIB);
    let put = |language: &str, received: u64| {
        let mut stored = stored("https://a.b/", 10);
        stored.vary = Box::new([(ACCEPT_LANGUAGE, Some(HeaderValue::from_str(language).unwrap()))]);
        stored.facts.received = received;
        memory.put(key("a"), Arc::new(stored), 2_000);
    };
    put("de", 1);
    put("en", 2);
    let received = |headers| match memory.get(key("a"), &headers) {
        Look::Hit(stored) => Some(stored.facts.received),
        _ => None,
    };
    assert_eq!((received(language("de")), received(language("en"))), (Some(1), Some(2)));
    assert!(matches!(memory.get(key("a"), &HeaderMap::new()), Look::OtherVariant));
    assert!(matches!(memory.get(key("b"), &language("de")), Look::Nothing));
    put("de", 3);
    assert_eq!((received(language("de")), memory.held().objects), (Some(3), 2));
    let mut for_all = stored("https://a.b/", 10);
    for_all.facts.received = 4;
    memory.put(key("a"), Arc::new(for_all), 2_000);
    assert_eq!(received(language("de")), Some(4));
    for number in 0..100 {
        put(&format!("x{number}"), 10 + number);
    }
    assert_eq!(memory.held().objects, 16);
    assert_eq!(received(language("x99")), Some(109));
    memory.0.assert_sound();
    assert_eq!(memory.purge(&Purge { what: What::Key(b"a"[..].into()), how: How::Remove }), 16);
    assert_eq!(memory.held().bytes, 0);
    memory.0.assert_sound();
}

#[test]
fn bytes_are_bounded_whatever_comes_and_large_objects_do_not_empty_a_shard() {
    let memory = Memory::new(8 * MIB);
    filled(&memory, 4_000, |_| Vec::new());
    for number in 0..2_000_usize {
        let len = number.wrapping_mul(2_654_435_761) % (MIB - 2_000);
        assert!(memory.put(key(&format!("big{number}")), Arc::new(stored("https://a.b/big", len)), 2_000));
        assert!(memory.held().bytes <= 8 * MIB);
    }
    memory.0.assert_sound();
    assert!(!memory.put(key("huge"), Arc::new(stored("https://a.b/huge", MIB)), 2_000));
    assert!(memory.held().evicted > 4_000);
    memory.set_most(MIB, 2_000);
    assert!(memory.held().bytes <= MIB);
    memory.0.assert_sound();
    memory.set_most(0, 2_000);
    assert_eq!((memory.held().bytes, memory.held().objects), (0, 0));
}

#[test]
fn an_object_too_large_still_ends_what_was_there_before() {
    let memory = Memory::new(MIB);
    memory.put(key("a"), Arc::new(stored("https://a.b/", 10)), 2_000);
    assert!(!memory.put(key("a"), Arc::new(stored("https://a.b/", MIB)), 2_000));
    assert!(!has(&memory, "a"));
    memory.0.assert_sound();
}

#[test]
fn what_is_used_stays_and_what_is_useless_goes() {
    let memory = Memory::new(MIB);
    filled(&memory, 100, |_| Vec::new());
    let mut old = stored("https://a.b/old", 10);
    old.facts = Facts::default();
    memory.put(key("old"), Arc::new(old), 2_000);
    for number in 0..20_000 {
        if number % 10 == 0 {
            assert!((0..100).all(|used| has(&memory, &url(used))), "after {number}");
            has(&memory, "old");
        }
        memory.put(key(&format!("once{number}")), Arc::new(stored("https://a.b/once", 100)), 2_000);
    }
    assert!(!has(&memory, "old"), "though it was asked for");
    memory.0.assert_sound();
}

#[test]
fn purges_take_what_they_say_and_soft_ones_leave_it_invalid() {
    let memory = Memory::new(64 * MIB);
    let tags = |number: usize| vec![format!("of{}", number % 3), "all".to_owned()];
    let purge = |what, soft| {
        let how = if soft { How::Expire } else { How::Remove };
        memory.purge(&Purge { what, how })
    };
    let left = || memory.held().objects;
    filled(&memory, 300, tags);
    assert_eq!((purge(What::Tag("of1".into()), true), left()), (100, 300));
    let Look::Hit(stored) = memory.get(key(&url(1)), &HeaderMap::new()) else { panic!("it is gone") };
    assert!(stored.is_expired() && !stored.is_invalid());
    assert_eq!((purge(What::Tag("of1".into()), false), left()), (100, 200));
    assert!(!has(&memory, &url(1)) && has(&memory, &url(2)));
    assert_eq!((purge(What::Url(url(2).into()), false), left()), (1, 199));
    assert_eq!((purge(What::Url("https://a.b/2".into()), false), left()), (0, 199));
    assert_eq!((purge(What::Prefix("https://a.b/3/".into()), true), left()), (20, 199));
    assert_eq!((purge(What::Prefix("https://a.b/3/".into()), false), left()), (20, 179));
    assert_eq!((purge(What::Tag("none".into()), false), left()), (0, 179));
    memory.0.assert_sound();
    assert_eq!((purge(What::All, false), left()), (179, 0));
    memory.0.assert_sound();
}

#[test]
fn a_hundred_thousand_objects_are_purged_by_tag_in_less_time_than_it_took_to_put_them_in() {
    let memory = Memory::new(512 * MIB);
    let begin = worked();
    filled(&memory, 100_000, |_| vec!["all".to_owned()]);
    let filled = worked() - begin;
    assert_eq!(memory.purge(&Purge { what: What::Tag("all".into()), how: How::Remove }), 100_000);
    let purged = worked() - begin - filled;
    // Without optimisation it is ten times what it is with.
    assert!(purged < filled, "{purged:?} after {filled:?}");
    assert_eq!(memory.held().bytes, 0);
}

#[test]
fn many_at_once_leave_the_accounts_right() {
    let memory = Memory::new(4 * MIB);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let memory = &memory;
            scope.spawn(move || {
                for number in 0..5_000_usize {
                    let name = url((number * 7 + thread * 13) % 900);
                    let mut stored = stored(&name, (number * 37) % 9_000);
                    stored.tags = Box::new([format!("t{}", number % 50).into()]);
                    memory.put(key(&name), Arc::new(stored), 2_000);
                    has(memory, &url(number % 900));
                    if number % 100 == 0 {
                        let what = What::Tag(format!("t{}", (number / 100) % 50).into());
                        let how = if thread % 2 == 0 { How::Invalidate } else { How::Remove };
                        memory.purge(&Purge { what, how });
                    }
                }
            });
        }
    });
    memory.0.assert_sound();
}
