//! What operators see of an upstream: `GET /upstreams` of the admin listener and `tollgate status`.

use super::Upstream;
use super::members::Member;
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;

/// One upstream at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// What is spoken to it.
    pub protocol: String,
    /// How targets are chosen.
    pub balance: String,
    /// Whether at least one target can be chosen.
    pub healthy: bool,
    /// The circuit breaker, if there is one: `closed`, `open` or `half_open`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub breaker: Option<String>,
    /// Whether ejected targets are used because too few others are left.
    #[serde(default)]
    pub panics: bool,
    /// Ejections of all its targets since the start.
    #[serde(default)]
    pub ejections: u64,
    /// Changes of health of all its targets since the start.
    pub health_changes: u64,
    /// Failed look-ups of its names since the start.
    pub dns_failures: u64,
    /// Its targets, in the order of the configuration.
    pub targets: Vec<TargetStatus>,
}

/// One target at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its address, or `unix:` and a path.
    pub address: String,
    /// The name it was found under.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Its share; 0 is drained.
    pub weight: u32,
    /// Whether the weight was set by hand.
    #[serde(default)]
    pub by_hand: bool,
    /// Whether it gets no requests because its weight is 0.
    #[serde(default)]
    pub drained: bool,
    /// Whether it is only used when others are not to be had.
    #[serde(default)]
    pub backup: bool,
    /// How much of its share it gets, in percent: less than 100 while it starts slowly.
    #[serde(default = "whole")]
    pub share: u32,
    /// Whether it is left alone because requests to it have failed.
    #[serde(default)]
    pub ejected: bool,
    /// What active checks say.
    pub healthy: bool,
    /// Whether it has been checked yet.
    pub checked: bool,
    /// Why it is unhealthy or ejected, or the last failure while it is still healthy; empty when the last check was good.
    pub reason: String,
    /// Since when it is healthy or not, seconds of the Unix epoch.
    pub since: u64,
    /// Requests under way.
    pub in_flight: u32,
    /// Peak EWMA of the time to the first byte, milliseconds.
    pub ewma_ms: Option<f64>,
}

fn whole() -> u32 {
    100
}

impl Upstream {
    /// Its present state for people.
    pub fn status(&self) -> UpstreamStatus {
        let spec = self.spec();
        let members = self.members();
        UpstreamStatus {
            name: spec.name.to_string(),
            protocol: spec.protocol.as_str().to_owned(),
            balance: spec.balance.as_str().to_owned(),
            healthy: self.is_healthy(),
            breaker: self.breaker().map(|breaker| breaker.phase().as_str().to_owned()),
            panics: members.panics(),
            ejections: self.ejections(),
            health_changes: self.health_changes(),
            dns_failures: self.dns_failures(),
            targets: members.all().iter().map(|member| self.target_status(member)).collect(),
        }
    }

    fn target_status(&self, Member { target, weight, ramp, backup }: &Member) -> TargetStatus {
        let health = target.health();
        let ejection = target.record.ejection();
        TargetStatus {
            address: target.label().to_string(),
            name: target.name().map(|name| name.to_string()),
            weight: *weight,
            by_hand: self.weight_by_hand(target.label()).is_some(),
            drained: *weight == 0,
            backup: *backup,
            share: *ramp,
            ejected: ejection.until.is_some(),
            healthy: target.is_healthy(),
            checked: target.is_checked(),
            reason: if ejection.until.is_some() { ejection.reason } else { health.reason },
            since: health.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            in_flight: target.in_flight(),
            ewma_ms: target.ewma_ms().map(|ms| (ms * 1000.0).round() / 1000.0),
        }
    }
}
