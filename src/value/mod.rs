//! The words a configuration is written in. Each parses itself, prints itself and knows its JSON Schema.

mod cidr;
mod flexible;
mod header;
mod host;
pub mod issue;
mod key;
mod method;
mod name;
mod path;
mod pattern;
mod quantity;
pub mod query;
mod rate;
mod secret;
mod spanned;
mod template;
mod text;
mod trouble;

pub use cidr::{Cidr, Networks};
pub use flexible::{ONE_OR_MANY, OneOrMany, OrNone, Short};
pub(crate) use flexible::{short_or_long, short_value};
pub use header::HeaderKey;
pub use host::{HostPattern, host_key, parent_domain};
pub use issue::{At, Code, Issue, Issues, Sources};
pub use key::Key;
pub use method::MethodName;
pub use name::Name;
pub use path::{Normalize, PathError, normalize};
pub use pattern::{Params, PathPattern, Segment, Tail, split_segment};
pub use quantity::{ByteSize, Percent, Span, counted};
pub use rate::Rate;
pub use secret::Secret;
pub use spanned::{Map, SPANNED, Spanned};
pub use template::{Part, Template};
pub(crate) use text::text_value;
pub use trouble::{Trigger, Triggers, Trouble};
