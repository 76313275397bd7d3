//! Answers that are kept and given again: a shared cache (RFC 9111).
//!
//! [`Stored`] is one answer: immutable, but that its body may still be coming. Whether it may be kept and whether it may be
//! used is told by pure functions; where it is kept knows nothing of HTTP but which requests select it.

mod stored;

pub use stored::{Facts, Key, Stored};
