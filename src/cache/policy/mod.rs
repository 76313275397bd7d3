//! Whether an answer may be kept, whether what is kept may be given, and what becomes of it: RFC 9111 without I/O.
//!
//! Nothing here reads a clock: times are milliseconds since 1970 and come from the caller.

mod freshness;
mod given;
mod invalidation;
mod reuse;
mod storing;
mod update;

pub use freshness::{Times, current_age, ttl};
pub use given::{Given, answer_to};
pub use invalidation::invalidated_by;
pub use reuse::{Verdict, judge};
pub use storing::{Answered, Kept, clean, keep, storable};
pub use update::{HeadEffect, Merged, head_effect, merge, validator, without_conditions};

#[cfg(test)]
mod tests;
