//! What changes who can be chosen: weights set by hand, checks, failed requests, and time. Each change builds the members
//! anew, so that a pick finds everything ready made.

use super::members::Members;
use super::revival;
use super::spec::PassiveSpec;
use super::sticky;
use super::target::{Lease, Target};
use super::{Instant, Upstream};
use crate::value::{Span, Trouble};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant as Moment;

impl Upstream {
    /// Gives the targets at `label` (an address as [`Target::label`] prints it) another weight until the next reload
    /// that changes the upstream; 0 drains: no new requests, what is under way goes on. `None` is what the configuration
    /// says. Returns whether there is such a target.
    pub fn set_weight(&self, label: &str, weight: Option<u32>) -> bool {
        let known = self.targets().into_iter().find(|target| &**target.label() == label);
        let Some(target) = known else { return false };
        let mut weights = self.weights.lock();
        let (name, label) = (self.name(), target.label());
        match weight {
            Some(weight) => {
                log::info!("upstream `{name}`: target {label} has weight {weight} by hand");
                weights.insert(Arc::clone(label), weight);
            }
            None => {
                log::info!("upstream `{name}`: target {label} has its configured weight");
                weights.remove(label);
            }
        }
        drop(weights);
        self.members_changed();
        true
    }

    /// The weight set by hand, if there is one.
    pub(super) fn weight_by_hand(&self, label: &str) -> Option<u32> {
        self.weights.lock().get(label).copied()
    }

    pub(super) fn members_changed(&self) {
        self.rebuild(&[]);
        self.revive.notify_one();
        self.membership.send_replace(());
    }

    pub(super) fn health_changed(&self) {
        self.health_changes.fetch_add(1, Ordering::Relaxed);
        self.rebuild(&[]);
        self.revive.notify_one();
    }

    /// Ejections of its targets since the start.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// What a client's cookie decides by, for [`Upstream::pick`].
    pub fn sticky_key(&self, value: &str) -> Option<[u8; 8]> {
        sticky::read(value).map(u64::to_le_bytes)
    }

    /// Takes in how an attempt went: with an answer that is no trouble (`None`), or not. To be called once for an attempt, and
    /// not at all when it ended for a reason that is not the target's.
    pub fn report(&self, lease: &mut Lease, trouble: Option<Trouble>, now: Moment) {
        if let Some(breaker) = &self.breaker {
            let good = !matches!(
                trouble,
                Some(Trouble::Connect | Trouble::Reset | Trouble::Timeout | Trouble::Status(500..))
            );
            match lease.take_ticket() {
                Some(ticket) => ticket.tell(good, now),
                None => breaker.count(good, now),
            }
        }
        let Some(passive) = &self.spec.health.passive else { return };
        match trouble.filter(|trouble| passive.on.has(*trouble)) {
            None => lease.target().record.good(),
            Some(trouble) if lease.target().record.bad(passive, now) => {
                self.eject(lease.target(), passive, trouble);
            }
            Some(_) => {}
        }
    }

    /// Leaves a target alone, unless too many are already.
    fn eject(&self, target: &Arc<Target>, passive: &PassiveSpec, trouble: Trouble) {
        let members = self.members.load_full();
        let with_weight = || members.all().iter().filter(|member| member.weight > 0);
        let (all, out) =
            (with_weight().count(), with_weight().filter(|member| member.target.is_ejected()).count());
        // The only one is never left alone: there would be nobody to go to.
        let most = (all * usize::from(passive.max_ejected) / 10_000).max(1).min(all.saturating_sub(1));
        if out >= most || passive.max_ejected == 0 {
            return;
        }
        let reason = match trouble {
            Trouble::Status(status) => {
                format!("{} failures in a row, the last one status {status}", passive.failures)
            }
            other => format!("{} failures in a row, the last one {other}", passive.failures),
        };
        if let Some(time) = target.record.eject(passive, &reason, trouble == Trouble::Connect, Instant::now())
        {
            log::warn!(
                "upstream `{}`: target {} is ejected for {}: {reason}",
                self.name(),
                target.label(),
                Span(time)
            );
            self.ejections.fetch_add(1, Ordering::Relaxed);
            self.rebuild(&[]);
            self.revive.notify_one();
        }
    }

    /// Lets targets in again whose time is up, and gives those that start slowly their present share. Gives when to come next.
    pub(super) fn revive(&self, now: Instant) -> Option<Instant> {
        let targets = self.targets();
        let mut changed = false;
        for target in &targets {
            if target.record.readmit(now) {
                log::info!("upstream `{}`: target {} is let in again", self.name(), target.label());
                target.start_slowly();
                changed = true;
            }
        }
        let slow_start = self.spec.slow_start;
        let starting = targets.iter().any(|target| target.starting().is_some());
        if changed || starting {
            self.rebuild(&[]);
        }
        let step = targets.iter().any(|target| target.starting().is_some());
        let step = step.then(|| now.checked_add(revival::step(slow_start))).flatten();
        targets.iter().filter_map(|target| target.record.ejection().until).chain(step).min()
    }

    /// How much of its share a target gets, in percent.
    pub(super) fn ramp(&self, target: &Target) -> u32 {
        let Some(since) = target.starting() else { return 100 };
        let share = revival::share(since.elapsed(), self.spec.slow_start);
        if share.is_none() {
            target.has_started();
        }
        share.unwrap_or(100)
    }

    pub(super) fn announce_panic(&self, old: &Members, new: &Members) {
        let name = self.name();
        match (old.panics(), new.panics()) {
            (false, true) => {
                log::warn!("upstream `{name}`: too few targets are left: ejected ones are used as well")
            }
            (true, false) => {
                log::info!("upstream `{name}`: enough targets are left: ejected ones are no longer used")
            }
            _ => {}
        }
    }
}
