//! `auth`: who calls, and whether they may (AU-01…06, AU-10…12, AU-18).

pub mod rules;

use super::{Filter, Hooks, Made, Settings, Step};
use crate::auth::claims::Require;
use crate::auth::guard::Guard;
use crate::auth::{Check, Named, Refusal, Verdict};
use crate::build::Build;
use crate::consumer::{Consumer, Identity};
use crate::exchange::{Exchange, RequestHead};
use crate::observe::metrics::AuthResult;
use crate::reply::{Kind, Problem, Reply};
use crate::value::{Code, Issue, Issues, Name, Spanned};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue};
use rules::{Auth as Written, Proven, Who};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

pub(super) const NAME: &str = "auth";
/// How long an explanation waits for keys that have not been fetched yet.
const EXPLAINING: Duration = Duration::from_secs(3);

/// The step of a route that is not for everybody, and of a public one where header fields of providers must be removed.
struct Auth {
    providers: Vec<Arc<Named>>,
    /// Whether all must accept, and not one.
    all: bool,
    anonymous: Option<Arc<Identity>>,
    require: Option<Require>,
    allow: Option<Listed>,
    deny: Option<Listed>,
    /// Header fields that only providers may send upstream.
    forwards: Arc<[HeaderName]>,
    guards: Arc<[Option<Arc<Guard>>]>,
}

/// Consumers, by name or by tag.
struct Listed {
    consumers: Vec<Name>,
    tags: Vec<Name>,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let auth = settings.auth.as_ref()?;
    let forwards = settings.build.forwards();
    match auth.value {
        Written::Public if forwards.is_empty() => None,
        Written::Public => {
            Some(Made::new(Public { forwards: forwards.clone() }, Hooks::UPSTREAM_REQUEST, auth.at))
        }
        Written::Proven(proven) => {
            let made = Auth::new(proven, auth, settings.build, issues)?;
            Some(Made::new(made, Hooks { request: true, upstream_request: true, response: false }, auth.at))
        }
    }
}

impl Auth {
    fn new(proven: &Proven, auth: &Spanned<&Written>, build: &Build, issues: &mut Issues) -> Option<Auth> {
        let place = |at: crate::value::At| if at.is_somewhere() { at } else { auth.at };
        let named = proven.any.iter().chain(&proven.all);
        let providers: Vec<_> = named
            .map(|name| issues.take(build.provider(name, place(name.at))))
            .collect::<Vec<_>>()
            .into_iter()
            .map(Option::flatten)
            .collect::<Option<_>>()?;
        let anonymous = match &proven.anonymous {
            None => None,
            Some(name) => {
                let consumer = issues.take(build.consumer(name, place(name.at)))?;
                Some(Arc::new(Identity::of_consumer(&consumer, "anonymous")))
            }
        };
        let require = proven.require.iter().next().map(|_| Require::from(&proven.require));
        Some(Auth {
            providers,
            all: !proven.all.is_empty(),
            anonymous,
            require,
            allow: listed(proven.allow.as_ref(), build, issues),
            deny: listed(proven.deny.as_ref(), build, issues),
            forwards: build.forwards().clone(),
            guards: build.guards().clone(),
        })
    }

    /// Whoever explains a request may say who would send it. Otherwise keys may have to be fetched first: nothing has run
    /// before in a process that only explains.
    fn explaining<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if let Some(assumed) = x.identity.take() {
            let decision = match self.is_kept_out(&assumed) {
                false => Decision::Pass(assumed),
                true => Decision::Refuse(kept_out()),
            };
            return self.conclude(decision, request, x).map_or(Step::Continue, Step::Reply);
        }
        if let Some(reply) = self.blocked(request, x) {
            return Step::Reply(reply);
        }
        Step::Wait(Box::pin(async move {
            for named in &self.providers {
                named.provider.warm(EXPLAINING).await;
            }
            let decision = self.ask_on(0, Tally::default(), request, x).await;
            self.conclude(decision, request, x)
        }))
    }

    fn guard(&self, x: &Exchange) -> Option<&Guard> {
        self.guards.get(usize::from(x.listener))?.as_deref()
    }

    /// Asks the providers from this one on.
    async fn ask_on(&self, from: usize, mut tally: Tally, request: &RequestHead, x: &Exchange) -> Decision {
        for named in self.providers.iter().skip(from) {
            let verdict = match named.provider.check(request, x) {
                Check::Now(verdict) => verdict,
                Check::Later(waiting) => waiting.await,
            };
            if tally.over(verdict, named, self.all) {
                break;
            }
        }
        self.decision(tally)
    }

    fn decision(&self, tally: Tally) -> Decision {
        if let Some(identity) = tally.identity(self.all, self.providers.len()) {
            return match self.forbidden(&identity) {
                None => Decision::Pass(identity),
                Some(refusal) => Decision::Refuse(refusal),
            };
        }
        // What might have accepted the credential could not be asked: nobody can say that it is not good.
        if let Some(why) = tally.unavailable {
            return Decision::Unavailable(why);
        }
        if let Some(reply) = tally.answered {
            return Decision::Answer(reply);
        }
        match (tally.refused, &self.anonymous) {
            (Some(refusal), _) => Decision::Refuse(refusal),
            (None, Some(anonymous)) if tally.accepted.is_empty() => match self.is_kept_out(anonymous) {
                false => Decision::Guest(anonymous.clone()),
                true => Decision::Refuse(kept_out()),
            },
            (None, _) => Decision::Nobody,
        }
    }

    /// Why somebody who has proven who they are may still not pass.
    fn forbidden(&self, identity: &Identity) -> Option<Refusal> {
        if let Some(require) = &self.require {
            let empty = crate::consumer::Claims::new();
            if let Err(refusal) = require.check(identity.claims.as_ref().unwrap_or(&empty)) {
                return Some(refusal);
            }
        }
        self.is_kept_out(identity).then(kept_out)
    }

    /// Whether the lists of consumers and tags keep this one out.
    fn is_kept_out(&self, identity: &Identity) -> bool {
        let consumer = identity.consumer.as_deref();
        let is_in = |listed: &Listed| consumer.is_some_and(|consumer| listed.contains(consumer));
        self.deny.as_ref().is_some_and(is_in) || !self.allow.as_ref().is_none_or(is_in)
    }

    /// Puts a decision into effect.
    fn conclude(&self, decision: Decision, request: &RequestHead, x: &mut Exchange) -> Option<Reply> {
        if let (Some(guard), false) = (self.guard(x), x.explaining) {
            match &decision {
                Decision::Pass(_) => guard.succeeded(x.client_ip),
                Decision::Refuse(refusal) if refusal.kind.status == 401 => guard.failed(x.client_ip),
                _ => {}
            }
        }
        match decision {
            Decision::Pass(identity) | Decision::Guest(identity) => {
                x.identity = Some(identity);
                None
            }
            Decision::Refuse(refusal) => {
                x.auth_error = Some(refusal.why);
                Some(self.refuse(refusal).reply(request, x))
            }
            Decision::Nobody => {
                x.auth_error = Some("no-credentials");
                Some(self.challenge(Kind::NO_CREDENTIALS.into()).reply(request, x))
            }
            Decision::Unavailable(why) => {
                x.auth_error = Some(why);
                let problem = Problem::from(Kind::AUTH_UNAVAILABLE);
                Some(problem.retry_after(Duration::from_secs(1)).reply(request, x))
            }
            Decision::Answer(reply) => {
                x.auth_error = Some("answered");
                Some(*reply)
            }
        }
    }

    /// Adds what every provider asks for (RFC 9110 section 11.6.1).
    fn challenge(&self, mut problem: Problem) -> Problem {
        let challenges = self.providers.iter().filter_map(|named| named.provider.challenge());
        problem.headers.extend(challenges.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        problem
    }

    fn refuse(&self, refusal: Refusal) -> Problem {
        let bearer = refusal.error.and_then(|error| bearer(error, &refusal));
        let problem = Problem::from(refusal.kind).detail(refusal.detail);
        match bearer {
            Some(bearer) => {
                let mut problem = problem;
                problem.headers.push((WWW_AUTHENTICATE, bearer));
                problem
            }
            None if refusal.kind.status == 401 => self.challenge(problem),
            None => problem,
        }
    }

    fn blocked(&self, request: &RequestHead, x: &mut Exchange) -> Option<Reply> {
        let wait = self.guard(x)?.is_blocked(x.client_ip)?;
        x.auth_error = Some("blocked");
        Some(Problem::from(Kind::BLOCKED).retry_after(wait).reply(request, x))
    }
}

/// What `error` of RFC 6750 section 3 looks like; texts are ours, so that nothing in them needs escaping.
fn bearer(error: &str, refusal: &Refusal) -> Option<HeaderValue> {
    let scope = refusal.scope.as_ref().map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
    let text = format!(
        "Bearer realm=\"tollgate\", error=\"{error}\", error_description=\"{}\"{scope}",
        refusal.detail
    );
    HeaderValue::from_str(&text).ok()
}

fn kept_out() -> Refusal {
    let detail = "This consumer may not use this route.".into();
    Refusal { kind: Kind::FORBIDDEN, why: "consumer", error: None, detail, scope: None }
}

fn listed(who: Option<&Who>, build: &Build, issues: &mut Issues) -> Option<Listed> {
    let who = who?;
    for name in &who.consumers.0 {
        drop(issues.take(build.consumer(name, name.at)));
    }
    for tag in who.tags.0.iter().filter(|tag| !build.has_tag(&tag.value)) {
        let message = format!("no consumer has the tag `{}`", tag.value);
        issues.push(Issue::new(Code::UNKNOWN_REFERENCE, message).at(tag.at));
    }
    let names = |list: &[Spanned<Name>]| list.iter().map(|name| name.value.clone()).collect();
    Some(Listed { consumers: names(&who.consumers.0), tags: names(&who.tags.0) })
}

impl Listed {
    fn contains(&self, consumer: &Consumer) -> bool {
        self.consumers.iter().any(|name| name.as_str() == &*consumer.name)
            || consumer.tags.iter().any(|tag| self.tags.contains(tag))
    }
}

/// What providers have found so far.
#[derive(Default)]
struct Tally {
    accepted: SmallVec<[Arc<Identity>; 2]>,
    refused: Option<Refusal>,
    unavailable: Option<&'static str>,
    answered: Option<Box<Reply>>,
}

enum Decision {
    Pass(Arc<Identity>),
    /// Nobody has proven anything, and that is all right.
    Guest(Arc<Identity>),
    Refuse(Refusal),
    Nobody,
    Unavailable(&'static str),
    Answer(Box<Reply>),
}

impl Tally {
    /// Counts a verdict; `true` when no other can change the decision.
    fn over(&mut self, verdict: Verdict, by: &Named, all: bool) -> bool {
        let result = match verdict {
            Verdict::Accepted(identity) => {
                self.accepted.push(identity);
                AuthResult::Accepted
            }
            Verdict::Absent => AuthResult::Nobody,
            Verdict::Refused(refusal) => {
                self.refused.get_or_insert(refusal);
                AuthResult::Refused
            }
            Verdict::Unavailable(why) => {
                self.unavailable.get_or_insert(why);
                AuthResult::Unavailable
            }
            Verdict::Answered(reply) => {
                self.answered.get_or_insert(reply);
                AuthResult::Answered
            }
        };
        by.metrics.decided(result);
        // A credential that is missing may stand beside one that is not good, which then counts more.
        if all {
            !matches!(result, AuthResult::Accepted | AuthResult::Nobody)
        } else {
            result == AuthResult::Accepted
        }
    }

    /// Who the caller is, if enough providers have accepted: the first, with what all of them forward.
    fn identity(&self, all: bool, providers: usize) -> Option<Arc<Identity>> {
        let (first, rest) = self.accepted.split_first()?;
        if all && self.accepted.len() < providers {
            return None;
        }
        if rest.is_empty() {
            return Some(first.clone());
        }
        Some(Arc::new(Identity {
            subject: first.subject.clone(),
            consumer: self.accepted.iter().find_map(|identity| identity.consumer.clone()),
            provider: first.provider.clone(),
            credential: first.credential.clone(),
            claims: self.accepted.iter().find_map(|identity| identity.claims.clone()),
            forward: self.accepted.iter().flat_map(|identity| identity.forward.iter().cloned()).collect(),
            expires: self.accepted.iter().filter_map(|identity| identity.expires).min(),
        }))
    }
}

impl Filter for Auth {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if x.explaining {
            return self.explaining(request, x);
        }
        if let Some(reply) = self.blocked(request, x) {
            return Step::Reply(reply);
        }
        let mut tally = Tally::default();
        for (number, named) in self.providers.iter().enumerate() {
            let over = match named.provider.check(request, x) {
                Check::Now(verdict) => tally.over(verdict, named, self.all),
                Check::Later(waiting) => {
                    return Step::Wait(Box::pin(async move {
                        let over = tally.over(waiting.await, named, self.all);
                        let decision = match over {
                            true => self.decision(tally),
                            false => self.ask_on(number + 1, tally, request, x).await,
                        };
                        self.conclude(decision, request, x)
                    }));
                }
            };
            if over {
                break;
            }
        }
        self.conclude(self.decision(tally), request, x).map_or(Step::Continue, Step::Reply)
    }

    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        _: &RequestHead,
        x: &Exchange,
    ) -> Result<(), Problem> {
        strip(&self.forwards, head);
        self.providers.iter().for_each(|named| named.provider.hide(head));
        for (name, value) in x.identity.iter().flat_map(|identity| &identity.forward) {
            head.headers.append(name, value.clone());
        }
        Ok(())
    }

    fn explain(&self, _: &RequestHead, x: &Exchange) -> String {
        let names: Vec<&str> = self.providers.iter().map(|named| &*named.name).collect();
        let how = names.join(if self.all { " and " } else { " or " });
        let Some(identity) = &x.identity else {
            return format!("{how}  refuse  {}", x.auth_error.unwrap_or_default());
        };
        let consumer = identity.consumer.as_ref().map_or("not a known consumer", |consumer| &consumer.name);
        format!("{how}  pass  {} by {} (consumer {consumer})", identity.subject, identity.provider)
    }
}

/// The step of a route for everybody: only removes what clients must not be able to say of themselves.
struct Public {
    forwards: Arc<[HeaderName]>,
}

impl Filter for Public {
    fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        _: &RequestHead,
        _: &Exchange,
    ) -> Result<(), Problem> {
        strip(&self.forwards, head);
        Ok(())
    }

    fn explain(&self, _: &RequestHead, _: &Exchange) -> String {
        "pass  public".to_owned()
    }
}

fn strip(names: &[HeaderName], head: &mut RequestHead) {
    for name in names {
        head.headers.remove(name);
    }
}
