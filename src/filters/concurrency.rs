//! `concurrency`: so many requests at once, of the route and of each caller (RT-18). Nobody waits: who comes when all places
//! are taken is refused. A place is given back when the request ends, however it does.

use super::rules::ConcurrencyRule;
use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead, cookie, header_text, query_value};
use crate::reply::{Kind, Problem};
use crate::value::{Code, Issue, Issues, Key, Spanned};
use hashbrown::HashMap;
use parking_lot::Mutex;
use prometheus::IntCounter;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(super) const NAME: &str = "concurrency";

/// When whoever is refused should come back: places are given back all the time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Parts of the table of callers, each with a lock of its own.
const PARTS: usize = 16;

struct Concurrency {
    max: Option<u32>,
    each: Option<u32>,
    per: Key,
    /// Number of the path parameter in `per`.
    param: usize,
    places: Arc<Places>,
    refused: [IntCounter; 2],
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rule = settings.concurrency.as_ref()?;
    let made = Concurrency::new(rule, settings, issues).map_err(|issue| issues.push(issue)).ok()?;
    Some(Made::new(made, Hooks::REQUEST, rule.at))
}

impl Concurrency {
    fn new(
        rule: &Spanned<&ConcurrencyRule>,
        settings: &Settings<'_>,
        issues: &mut Issues,
    ) -> Result<Concurrency, Issue> {
        let ConcurrencyRule { max, each, per } = rule.value;
        if let Some(zero) = [max, each].into_iter().flatten().find(|number| number.value == 0) {
            let issue = Issue::new(Code::BAD_VALUE, "nobody would ever be served").at(zero.at);
            return Err(issue.help("write a number from 1 on"));
        }
        let bind = settings.bind;
        match (max, each, per) {
            (None, None, _) => {
                let issue = Issue::new(Code::EMPTY, "`concurrency` says no number").at(rule.at);
                return Err(issue.help("write for example `concurrency: { max: 100, each: 10 }`"));
            }
            (_, None, Some(per)) => {
                let issue = Issue::new(Code::CONFLICT, "`per` belongs to `each`").at(per.at);
                return Err(issue.help("write for example `each: 10`"));
            }
            _ => {}
        }
        if let (Some(max), Some(each)) = (max, each)
            && each.value > max.value
        {
            let message = format!(
                "one caller may have more requests at once ({}) than all ({})",
                each.value, max.value
            );
            issues.push(Issue::new(Code::NO_EFFECT, message).at(each.at).help("make `each` less than `max`"));
        }
        let mut param = usize::MAX;
        if let Some(Spanned { value: Key::Param(name), at }) = per {
            let message = format!("the path of route `{}` has no parameter `{name}`", bind.route);
            let found = bind.params.iter().position(|known| known == name);
            param = found.ok_or_else(|| Issue::new(Code::BAD_TEMPLATE, message).at(*at))?;
        }
        if let Some(Spanned { value: Key::Consumer, at }) = per
            && !settings.has_callers()
        {
            let message = format!(
                "`concurrency` counts per consumer, but route `{}.{}` is public: nobody proves who they are",
                bind.api, bind.route
            );
            let issue = Issue::new(Code::CONFLICT, message).at(*at);
            return Err(issue.help("count `per: client_ip`"));
        }
        Ok(Concurrency {
            max: max.as_ref().map(|max| max.value),
            each: each.as_ref().map(|each| each.value),
            per: per.as_ref().map_or(Key::ClientIp, |per| per.value.clone()),
            param,
            places: settings.build.keep(
                &format!("concurrency {}.{}", bind.api, bind.route),
                |_| true,
                Places::default,
            ),
            refused: settings.build.metrics().concurrency_refused(bind.api, bind.route),
        })
    }

    /// What the caller is told apart by. The first byte keeps what a request has apart from the address it falls back to.
    fn caller(&self, request: &RequestHead, x: &Exchange) -> Caller {
        let found = match &self.per {
            Key::ClientIp => None,
            Key::Consumer => x.identity.as_ref().map(|identity| &*identity.subject),
            Key::Path => Some(request.uri.path()),
            Key::Header(name) => header_text(&request.headers, name),
            Key::Cookie(name) => cookie(&request.headers, name),
            Key::Query(name) => query_value(request.uri.query(), name),
            Key::Param(_) => x.params.value(request.uri.path(), self.param),
        };
        let mut caller = Caller::new();
        match found {
            Some(text) => {
                caller.push(1);
                caller.extend_from_slice(text.as_bytes());
            }
            None => {
                caller.push(0);
                match x.client_ip {
                    IpAddr::V4(v4) => caller.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => caller.extend_from_slice(&v6.octets()),
                }
            }
        }
        caller
    }

    /// # Errors
    /// All places are taken; what is said of that.
    fn enter(&self, request: &RequestHead, x: &Exchange) -> Result<Place, Kind> {
        if !self.places.take_any(self.max) {
            return Err(Kind::ROUTE_SATURATED);
        }
        let mut place = Place { places: self.places.clone(), caller: None };
        if let Some(each) = self.each {
            let caller = self.caller(request, x);
            if !self.places.take(&caller, each) {
                return Err(Kind::TOO_MANY_AT_ONCE);
            }
            place.caller = Some(caller);
        }
        Ok(place)
    }
}

/// What tells a caller apart.
type Caller = SmallVec<[u8; 40]>;

/// How many are being served, of the route and of each caller. Goes on over a reload.
#[derive(Default)]
struct Places {
    all: AtomicU32,
    /// Only callers that are being served are here.
    callers: [Mutex<HashMap<Caller, u32, foldhash::quality::RandomState>>; PARTS],
}

impl Places {
    fn part(&self, caller: &Caller) -> Option<&Mutex<HashMap<Caller, u32, foldhash::quality::RandomState>>> {
        let sum =
            caller.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        self.callers.get(sum % PARTS)
    }

    /// Whether fewer than so many places were taken, and now is one more. Without a bound they are counted all the same: a
    /// reload may bring one.
    fn take_any(&self, most: Option<u32>) -> bool {
        let most = most.unwrap_or(u32::MAX);
        let one_more = |taken: u32| (taken < most).then_some(taken + 1);
        self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Whether the caller had fewer than so many places, and now has one more.
    fn take(&self, caller: &Caller, most: u32) -> bool {
        let Some(part) = self.part(caller) else { return false };
        let mut part = part.lock();
        let taken = part.entry(caller.clone()).or_insert(0);
        let free = *taken < most;
        *taken += u32::from(free);
        free
    }

    fn give_back(&self, caller: &Caller) {
        let Some(part) = self.part(caller) else { return };
        let mut part = part.lock();
        if let Some(taken) = part.get_mut(caller) {
            *taken -= 1;
            if *taken == 0 {
                part.remove(caller);
            }
        }
    }

    fn of(&self, caller: &Caller) -> u32 {
        self.part(caller).and_then(|part| part.lock().get(caller).copied()).unwrap_or(0)
    }
}

/// A place that is taken, until it is dropped.
struct Place {
    places: Arc<Places>,
    caller: Option<Caller>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(caller) = &self.caller {
            self.places.give_back(caller);
        }
    }
}

impl Filter for Concurrency {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if x.explaining {
            return Step::Continue;
        }
        match self.enter(request, x) {
            Ok(place) => {
                x.holds.add(place);
                Step::Continue
            }
            Err(kind) => {
                let [max, each] = &self.refused;
                if kind == Kind::ROUTE_SATURATED {
                    max.inc()
                } else {
                    each.inc()
                }
                Step::Reply(Problem::from(kind).retry_after(RETRY_AFTER).reply(request, x))
            }
        }
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        let all = self.max.map(|max| format!("{} of {max} at once", self.places.all.load(Ordering::Relaxed)));
        let each = self.each.map(|each| {
            let caller = self.caller(request, x);
            format!("{} of {each} per {}", self.places.of(&caller), self.per)
        });
        all.into_iter().chain(each).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_nobody_is_remembered() {
        let places = Arc::new(Places::default());
        let (ann, bob) = (Caller::from_slice(b"\x01ann"), Caller::from_slice(b"\x01bob"));
        assert!(places.take(&ann, 2) && places.take(&ann, 2) && places.take(&bob, 2));
        assert!(!places.take(&ann, 2));
        assert_eq!((places.of(&ann), places.of(&bob)), (2, 1));
        places.give_back(&ann);
        assert!(places.take(&ann, 2));
        for caller in [&ann, &ann, &bob] {
            places.give_back(caller);
        }
        assert!(places.callers.iter().all(|part| part.lock().is_empty()));
        assert!(!places.take(&ann, 0));
        assert_eq!(places.of(&ann), 0);
    }

    #[test]
    fn many_threads_never_take_more_than_there_are() {
        let (places, most) = (Arc::new(Places::default()), AtomicU32::new(0));
        let caller = Caller::from_slice(b"\x01ann");
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if places.take(&caller, 3) {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            places.give_back(&caller);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(places.of(&caller), 0);
    }
}
