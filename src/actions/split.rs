//! The shares of a split (RT-12): as written, and as they are. They can be changed while the gateway runs, and a reload that
//! does not change the split leaves them so.

use crate::value::{Map, Percent};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All of it, in hundredths of a percent.
const WHOLE: u32 = 10_000;

/// The shares of one split.
#[derive(Debug)]
pub struct Shares {
    /// Upstreams and what is written of them, in the order of the file.
    written: Vec<(Box<str>, Percent)>,
    /// What their hashes are mixed with, so that each draws its own lots.
    seeds: Vec<u64>,
    /// What holds now.
    now: ArcSwap<Vec<Percent>>,
}

/// A split and its shares, as they are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// `api.route`.
    pub route: String,
    /// Whether its shares are others than the configuration says.
    pub changed: bool,
    /// Its upstreams.
    pub arms: Vec<ArmStatus>,
}

/// One upstream of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmStatus {
    /// Its name.
    pub upstream: String,
    /// Its share, such as `10%`.
    pub share: String,
    /// What the configuration says.
    pub configured: String,
}

impl SplitStatus {
    /// Its arms in words: `orders-v1 80% (configured 90%), orders-v2 20% (configured 10%)`.
    pub fn words(&self) -> String {
        let arm = |arm: &ArmStatus| match arm.share == arm.configured {
            true => format!("{} {}", arm.upstream, arm.share),
            false => format!("{} {} (configured {})", arm.upstream, arm.share, arm.configured),
        };
        self.arms.iter().map(arm).collect::<Vec<_>>().join(", ")
    }
}

impl Shares {
    /// As written.
    pub fn new(written: &Map<Percent>) -> Shares {
        let written: Vec<(Box<str>, Percent)> =
            written.iter().map(|(name, share)| (name.as_str().into(), *share)).collect();
        Shares {
            seeds: written.iter().map(|(name, _)| stable_hash(name.as_bytes())).collect(),
            now: ArcSwap::from_pointee(written.iter().map(|(_, share)| *share).collect()),
            written,
        }
    }

    /// Whether it is made from just this.
    pub fn is_of(&self, written: &Map<Percent>) -> bool {
        let own = self.written.iter().map(|(name, share)| (&**name, share));
        own.eq(written.iter().map(|(name, share)| (name.as_str(), share)))
    }

    /// The share of an arm, by its number.
    pub fn share(&self, number: usize) -> Percent {
        self.now.load().get(number).copied().unwrap_or(Percent(0))
    }

    /// Whether they are others than written.
    pub fn are_changed(&self) -> bool {
        !self.now.load().iter().eq(self.written.iter().map(|(_, share)| share))
    }

    /// The arm at this point of the whole, drawn by lot.
    pub fn drawn(&self, lot: u64) -> Option<usize> {
        let (point, mut below) = (lot % u64::from(WHOLE), 0);
        self.now.load().iter().position(|share| {
            below += u64::from(share.0);
            point < below
        })
    }

    /// The arm of whoever has this hash: the same one as long as the shares are the same, on every node. Of those who must
    /// move when shares change, no more do than must with two arms, and few more with several; the order in the file means
    /// nothing. (Rendezvous by weights: each arm draws a lot for the client, the larger its share the better; Schindelhauer and
    /// Schomaker 2005.)
    pub fn of_client(&self, hash: u64) -> Option<usize> {
        let now = self.now.load();
        let lots = now.iter().zip(&self.seeds).enumerate().filter(|(_, (share, _))| share.0 > 0);
        let lots = lots.map(|(number, (share, seed))| (lot(hash ^ seed) / f64::from(share.0), number));
        lots.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, number)| number)
    }

    /// The shares with some of them changed. When just one arm is not named, it gets what is left; several keep what they
    /// have.
    ///
    /// # Errors
    /// In words: an arm that there is not, or shares that do not add up to 100%.
    pub fn with(&self, given: &[(String, Percent)]) -> Result<Vec<Percent>, String> {
        let mut shares: Vec<(Percent, bool)> = self.now.load().iter().map(|share| (*share, false)).collect();
        for (name, share) in given {
            let place = self.written.iter().zip(&mut shares).find(|((arm, _), _)| **arm == **name);
            match place {
                Some((_, place)) if !place.1 => *place = (*share, true),
                Some(_) => return Err(format!("`{name}` is named twice")),
                None => {
                    let arms: Vec<&str> = self.written.iter().map(|(arm, _)| &**arm).collect();
                    return Err(format!("`{name}` is no upstream of this split; it has {}", arms.join(", ")));
                }
            }
        }
        let sum =
            |shares: &[(Percent, bool)]| shares.iter().map(|(share, _)| u32::from(share.0)).sum::<u32>();
        let all = sum(&shares);
        if let [(rest, _)] = &mut *shares.iter_mut().filter(|(_, named)| !named).collect::<Vec<_>>() {
            let others = all - u32::from(rest.0);
            *rest = Percent(u16::try_from(WHOLE.saturating_sub(others)).unwrap_or(0));
        }
        match sum(&shares) {
            WHOLE => Ok(shares.into_iter().map(|(share, _)| share).collect()),
            sum => Err(format!("the shares add up to {}%, not 100%", f64::from(sum) / 100.0)),
        }
    }

    /// Makes them these, which come from [`Shares::with`].
    pub fn set(&self, shares: Vec<Percent>) {
        self.now.store(Arc::new(shares));
    }

    /// Makes them what is written.
    pub fn reset(&self) {
        self.now.store(Arc::new(self.written.iter().map(|(_, share)| *share).collect()));
    }

    /// As they are told of this route.
    pub fn status(&self, route: &str) -> SplitStatus {
        let now = self.now.load();
        let arms = self.written.iter().zip(now.iter()).map(|((name, written), share)| ArmStatus {
            upstream: name.to_string(),
            share: share.to_string(),
            configured: written.to_string(),
        });
        SplitStatus { route: route.to_owned(), changed: self.are_changed(), arms: arms.collect() }
    }

    /// Takes over what holds in another process, if both are made from the same; gives whether they are.
    pub fn take_over(&self, status: &SplitStatus) -> bool {
        let same = |((name, written), arm): (&(Box<str>, Percent), &ArmStatus)| {
            *arm.upstream == **name && arm.configured.parse() == Ok(*written)
        };
        let shares: Vec<_> = status
            .arms
            .iter()
            .filter_map(|arm| Some((arm.upstream.clone(), arm.share.parse().ok()?)))
            .collect();
        self.written.len() == status.arms.len()
            && self.written.iter().zip(&status.arms).all(same)
            && self.with(&shares).map(|shares| self.set(shares)).is_ok()
    }
}

/// A lot from 0 up, exponentially distributed.
fn lot(hash: u64) -> f64 {
    // 53 bits are what an f64 holds; the half keeps 0 out, whose logarithm is none.
    let unit = ((mixed(hash) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -unit.ln()
}

/// The finaliser of SplitMix64.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// FNV-1a (64 bit) with a final mix: the same on every node, so that all send a client to the same place.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Spanned;

    const CLIENTS: u64 = 100_000;

    fn written(arms: &[(&str, u16)]) -> Map<Percent> {
        let arm =
            |(name, share): &(&str, u16)| (Spanned::built_in(name.parse().unwrap()), Percent(share * 100));
        Map(arms.iter().map(arm).collect())
    }

    fn shares(arms: &[(&str, u16)]) -> Shares {
        Shares::new(&written(arms))
    }

    fn change(shares: &Shares, arms: &[(&str, u16)]) -> Result<(), String> {
        let given: Vec<_> =
            arms.iter().map(|(name, share)| ((*name).to_owned(), Percent(share * 100))).collect();
        shares.with(&given).map(|changed| shares.set(changed))
    }

    fn told(shares: &Shares) -> Vec<String> {
        shares.status("r").arms.into_iter().map(|arm| arm.share).collect()
    }

    /// The arm of each client, by name.
    fn arms(shares: &Shares) -> Vec<&str> {
        let hash = |client: u64| stable_hash(&client.to_le_bytes());
        (0..CLIENTS).map(|client| &*shares.written[shares.of_client(hash(client)).unwrap()].0).collect()
    }

    fn part(arms: &[&str], of: &str) -> f64 {
        arms.iter().filter(|arm| **arm == of).count() as f64 / CLIENTS as f64
    }

    #[test]
    fn hashes_are_the_same_everywhere() {
        assert_eq!(stable_hash(b""), 17_058_014_651_485_797_458);
        assert_ne!(stable_hash(b"a") % 10_000, stable_hash(b"b") % 10_000);
        let shares = shares(&[("old", 50), ("new", 50)]);
        let first: Vec<_> = (0..16).map(|client| shares.of_client(client).unwrap()).collect();
        assert_eq!(first, FIRST, "clients would change their arms with a new release");
    }

    /// What the first hashes have always drawn.
    const FIRST: [usize; 16] = [1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1];

    #[test]
    fn clients_are_dealt_out_by_share() {
        let shares = shares(&[("a", 70), ("b", 25), ("c", 5), ("none", 0)]);
        let arms = arms(&shares);
        for (name, share) in [("a", 0.70), ("b", 0.25), ("c", 0.05), ("none", 0.0)] {
            assert!((part(&arms, name) - share).abs() < 0.006, "{name} {}", part(&arms, name));
        }
        let drawn: Vec<usize> = (0..10_000).filter_map(|lot| shares.drawn(lot)).collect();
        assert_eq!(
            [0, 1, 2, 3].map(|arm| drawn.iter().filter(|drawn| **drawn == arm).count()),
            [7000, 2500, 500, 0]
        );
    }

    #[test]
    fn a_canary_that_grows_takes_clients_and_gives_none_away() {
        let shares = shares(&[("old", 90), ("new", 10)]);
        let before = arms(&shares);
        change(&shares, &[("new", 20)]).unwrap();
        let after = arms(&shares);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(before, _)| *before == "old"), "nobody leaves the canary");
        let moved = moved.count() as f64 / CLIENTS as f64;
        assert!((moved - 0.10).abs() < 0.006, "{moved}");
        shares.reset();
        assert!(arms(&shares) == before, "and back again");
    }

    #[test]
    fn with_three_arms_few_more_move_than_must_and_order_means_nothing() {
        let shares = shares(&[("old", 80), ("new", 10), ("newer", 10)]);
        let before = arms(&shares);
        change(&shares, &[("old", 70), ("newer", 20)]).unwrap();
        let after = arms(&shares);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count() as f64;
        assert!((0.09..0.13).contains(&(moved / CLIENTS as f64)), "{moved}");
        let turned = super::Shares::new(&written(&[("newer", 20), ("new", 10), ("old", 70)]));
        assert!(arms(&turned) == after);
    }

    #[test]
    fn changes_are_whole_or_not_made() {
        let shares = shares(&[("a", 60), ("b", 30), ("c", 10)]);
        for (wrong, why) in [
            (&[("d", 10)][..], "no upstream of this split; it has a, b, c"),
            (&[("a", 10)], "add up to 50%"),
            (&[("a", 50), ("b", 60)], "add up to 110%"),
            (&[("a", 50), ("a", 50)], "twice"),
            (&[("a", 50), ("b", 40), ("c", 5)], "add up to 95%"),
        ] {
            let said = change(&shares, wrong).unwrap_err();
            assert!(said.contains(why), "{said}");
            assert!(!shares.are_changed());
        }
        change(&shares, &[("a", 40), ("b", 60)]).unwrap();
        assert_eq!(told(&shares), ["40%", "60%", "0%"], "the one that is not named gets the rest");
        change(&shares, &[("a", 0), ("b", 100)]).unwrap();
        assert!(arms(&shares).iter().all(|arm| *arm == "b"));
    }

    #[test]
    fn another_process_takes_over_what_holds_for_the_same_split() {
        let before = shares(&[("a", 60), ("b", 40)]);
        change(&before, &[("b", 55)]).unwrap();
        let status = before.status("shop.read");
        let after = shares(&[("a", 60), ("b", 40)]);
        assert!(after.take_over(&status));
        assert_eq!(told(&after), ["45%", "55%"]);
        for other in [shares(&[("a", 50), ("b", 50)]), shares(&[("a", 60), ("c", 40)]), shares(&[("a", 100)])]
        {
            assert!(!other.take_over(&status) && !other.are_changed());
        }
    }
}
