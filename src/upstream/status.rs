//! What operators see of an upstream: `GET /upstreams` of the admin listener and `tollgate status`.

use super::Upstream;
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
    /// What active checks say.
    pub healthy: bool,
    /// Whether it has been checked yet.
    pub checked: bool,
    /// Why it is unhealthy, or the last failure while it is still healthy; empty when the last check was good.
    pub reason: String,
    /// Since when it is healthy or not, seconds of the Unix epoch.
    pub since: u64,
    /// Requests under way.
    pub in_flight: u32,
    /// Peak EWMA of the time to the first byte, milliseconds.
    pub ewma_ms: Option<f64>,
}

impl Upstream {
    /// Its present state for people.
    pub fn status(&self) -> UpstreamStatus {
        let spec = self.spec();
        let targets: Vec<_> = self
            .weighted_targets()
            .into_iter()
            .map(|(target, weight)| {
                let health = target.health();
                TargetStatus {
                    address: target.label().to_string(),
                    name: target.name().map(|name| name.to_string()),
                    weight,
                    healthy: target.is_healthy(),
                    checked: target.is_checked(),
                    reason: health.reason,
                    since: health.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                    in_flight: target.in_flight(),
                    ewma_ms: target.ewma_ms().map(|ms| (ms * 1000.0).round() / 1000.0),
                }
            })
            .collect();
        UpstreamStatus {
            name: spec.name.to_string(),
            protocol: spec.protocol.as_str().to_owned(),
            balance: spec.balance.as_str().to_owned(),
            healthy: self.is_healthy(),
            health_changes: self.health_changes(),
            dns_failures: self.dns_failures(),
            targets,
        }
    }
}
