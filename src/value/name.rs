//! Names of things an operator defines.

use super::text::text_value;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a listener, upstream, api, route: 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit.
///
/// Cheap to clone: names go into logs and metric labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= 63 && text.chars().all(plain) {
            return Ok(Name(text.into()));
        }
        Err(format!(
            "`{text}` is not a name\nhelp: use 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit"
        ))
    }
}

text_value!(Name, "Name", pattern: r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", "a name: letters, digits, `-` and `_`");
