//! The configuration file: read with positions, typed, and described.

pub mod de;
pub mod diff;
pub mod docs;
pub mod document;
pub mod effective;
pub mod interpolate;
pub mod load;
pub mod report;
mod secrets;
pub mod yaml;

pub use document::Document;
pub use load::{Loaded, load, load_text};
