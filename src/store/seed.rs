//! What the identities of counters are hashed with. It is a secret: whoever has it can look for keys that fall on one counter.

use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::sync::OnceLock;

/// The key of a hash. All counters of a process have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 16]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

static SEED: OnceLock<Seed> = OnceLock::new();

impl Seed {
    /// That of this process: random, unless another was [planted](Seed::plant) before anything was counted.
    pub fn current() -> Seed {
        *SEED.get_or_init(|| {
            let mut seed = [0; 16];
            // Without randomness the process could not have come so far; a known seed would still count right.
            let _ = SystemRandom::new().fill(&mut seed);
            Seed(seed)
        })
    }

    /// Makes it that of this process; `false` when there is one already.
    #[must_use]
    pub fn plant(self) -> bool {
        SEED.set(self).is_ok()
    }

    pub(super) fn keys(self) -> (u64, u64) {
        let number = u128::from_le_bytes(self.0);
        ((number >> 64) as u64, number as u64)
    }
}
