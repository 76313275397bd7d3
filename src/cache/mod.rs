//! Answers that are kept and given again: a shared cache (RFC 9111).
//!
//! [`Stored`] is one answer: immutable, but that its body may still be coming. Whether it may be kept and whether it may be
//! used is told by pure functions ([`rules`], [`policy`]); where it is kept knows nothing of HTTP but which requests select it
//! ([`vary`]).

pub mod control;
pub mod date;
pub mod document;
mod key;
pub mod policy;
pub mod range;
pub mod rules;
pub mod status;
pub mod tiers;
mod stored;
pub mod vary;
mod why;

pub use key::canonical_url;
pub mod fill;
pub mod flight;
pub mod purge;
mod table;
mod shelves;
pub mod memory;
pub mod disk;
pub mod store;

pub use fill::{Body, Broken, Filler, Reader, Taken};
pub use memory::Look;
pub use store::{Ask, Fill, Follow, Followed, Joined, Store};
pub use stored::{Facts, Key, Stored};
pub use why::Why;
