//! `ip`: client addresses that are let in or refused (SE-04).

use super::rules::IpRules;
use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::{Kind, Problem};
use crate::value::{Issues, Networks};
use std::net::IpAddr;

pub(super) const NAME: &str = "ip";

struct Ip {
    allow: Option<Networks>,
    deny: Networks,
}

pub(super) fn make(settings: &Settings<'_>, _: &mut Issues) -> Option<Made> {
    let rules = settings.ip.as_ref()?;
    let IpRules { allow, deny } = rules.value;
    let networks = |list: &[crate::value::Cidr]| Networks::new(list.iter().map(|cidr| cidr.0));
    Some(Made::new(
        Ip { allow: allow.as_deref().map(networks), deny: networks(deny) },
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
