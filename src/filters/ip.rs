//! `ip`: client addresses that are let in or refused (SE-04).

use super::rules::IpRules;
use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::{Kind, Problem};
use crate::value::{Code, Issue, Issues, Networks};
use std::net::IpAddr;

pub(super) const NAME: &str = "ip";

struct Ip {
    allow: Option<Networks>,
    deny: Networks,
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let rules = settings.ip.as_ref()?;
    let IpRules { allow, deny } = rules.value;
    match allow {
        Some(allow) if allow.value.is_empty() => {
            let issue = Issue::new(Code::EMPTY, "an empty `allow` lets nobody in").at(allow.at);
            issues.push(issue.help("name who may come in, or leave `allow` out"));
        }
        None if deny.is_empty() => {
            let issue =
                Issue::new(Code::EMPTY, "`ip` says neither whom to let in nor whom to refuse").at(rules.at);
            issues.push(issue.help("write for example `ip: { allow: [10.0.0.0/8] }`, or `ip: none`"));
        }
        _ => {}
    }
    let networks = |list: &[crate::value::Cidr]| Networks::new(list.iter().map(|cidr| cidr.0));
    Some(Made::new(
        Ip { allow: allow.as_ref().map(|allow| networks(&allow.value)), deny: networks(deny) },
        Hooks::REQUEST,
        rules.at,
    ))
}

impl Ip {
    fn lets_in(&self, address: IpAddr) -> bool {
        !self.deny.contains(address) && self.allow.as_ref().is_none_or(|allow| allow.contains(address))
    }
}

impl Filter for Ip {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        if self.lets_in(x.client_ip) {
            return Step::Continue;
        }
        Step::Reply(Problem::from(Kind::IP_DENIED).reply(request, x))
    }

    fn explain(&self, _: &RequestHead, x: &Exchange) -> String {
        let verdict = if self.lets_in(x.client_ip) { "pass" } else { "refuse (403)" };
        format!("{verdict}  {}", x.client_ip)
    }
}
