//! Whether all that a provider of identity is made from is still the same.
//!
//! If it is, the provider itself goes on, with every token, answer and decision that it remembers. If anything differs, it is
//! made anew and remembers nothing: what was true of a token before need not be true under the new configuration.

use crate::auth::document::{Jwks, Provider as Written};
use crate::build::read_file;
use crate::config::Loaded;
use crate::config::yaml::{Kind, Node};
use crate::value::{Name, Spanned};
use ring::digest::{Context, SHA256};
use std::path::PathBuf;

/// The digest of all that a provider was made from. Secrets are among that: it is compared and never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Origin([u8; 32]);

/// What the providers of one configuration are made from.
pub(super) struct Origins<'a> {
    loaded: &'a Loaded,
    /// What counts for every provider.
    common: Context,
}

impl<'a> Origins<'a> {
    /// All consumers and plans count for every provider: what it remembers names consumers, and these their plans by number.
    pub(super) fn new(loaded: &'a Loaded) -> Self {
        let mut common = Context::new(&SHA256);
        for section in ["consumers", "plans"] {
            match loaded.tree.value(section) {
                Some(node) => put_node(&mut common, node),
                None => put(&mut common, b'-', &[]),
            }
        }
        Origins { loaded, common }
    }

    /// Of one provider, with the files that it names. Call it before the provider is made: when a file changes in between,
    /// the next reload finds that it has. `None` if something cannot be read, which making the provider reports.
    pub(super) fn of(&self, name: &Spanned<Name>, written: &Written) -> Option<Origin> {
        let mut context = self.common.clone();
        put(&mut context, b'n', name.as_str().as_bytes());
        put_node(&mut context, self.loaded.tree.value("auth")?.value(name.as_str())?);
        for path in files(written) {
            put(&mut context, b'f', &read_file(&self.loaded.base, &path, super::access::MAX_FILE).ok()?);
        }
        <[u8; 32]>::try_from(context.finish().as_ref()).ok().map(Origin)
    }
}

/// The files that a provider is made from.
fn files(written: &Written) -> Vec<Spanned<PathBuf>> {
    match written {
        Written::Jwt(jwt) => {
            let set = jwt.jwks.as_ref().and_then(|jwks| match &jwks.value {
                Jwks::File(path) => Some(Spanned { value: path.clone(), at: jwks.at }),
                Jwks::Discovery | Jwks::Url(_) => None,
            });
            set.into_iter().chain(jwt.pem.clone()).chain(jwt.ca.clone()).collect()
        }
        Written::Introspection(introspection) => introspection.ca.iter().cloned().collect(),
        Written::Forward(forward) => forward.ca.iter().cloned().collect(),
        Written::ApiKey(_) | Written::Basic(_) | Written::ClientCert(_) => Vec::new(),
    }
}

/// A value with all values in it, wherever they stand in their file. Values from outside count as what they are, not as how
/// they are written.
fn put_node(context: &mut Context, node: &Node) {
    match &node.kind {
        Kind::Refused => put(context, b'r', &[]),
        Kind::Scalar(scalar) => match &scalar.value {
            serde_yaml::Value::String(text) => put(context, b's', text.as_bytes()),
            other => put(context, b'v', format!("{other:?}").as_bytes()),
        },
        Kind::Seq(items) => {
            put(context, b'l', &items.len().to_be_bytes());
            items.iter().for_each(|item| put_node(context, item));
        }
        Kind::Map(entries) => {
            put(context, b'm', &entries.len().to_be_bytes());
            for entry in entries {
                put(context, b'k', entry.key.value.as_bytes());
                put_node(context, &entry.value);
            }
        }
    }
}

/// One piece with its kind and length, so that no two lists of pieces run together to the same.
fn put(context: &mut Context, kind: u8, bytes: &[u8]) {
    context.update(&[kind]);
    context.update(&(bytes.len() as u64).to_be_bytes());
    context.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Issues, Sources};

    const BASE: &str = "version: 1
auth:
  id: { jwt: { issuer: https://id.test, audience: [a, b], jwks: keys.json, require: { scope: read } } }
  other: { api_key: { header: x-key } }
plans: { free: { limits: [1/s per consumer] }, pro: {} }
consumers: { ann: { plan: free, ids: [x], tags: [t] } }
";

    /// Of the provider `id`, with this text and this set of keys.
    fn origin(text: &str, keys: &str) -> Option<Origin> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.json"), keys).unwrap();
        let (mut sources, mut issues) = (Sources::default(), Issues::default());
        let path = folder.path().join("tollgate.yaml");
        let loaded = crate::config::load_text(&path, text, &mut sources, &mut issues).unwrap();
        let (name, written) = loaded.document.auth.iter().next().unwrap();
        Origins::new(&loaded).of(name, written)
    }

    #[test]
    fn places_comments_and_other_parts_do_not_count() {
        let base = origin(BASE, "{}");
        assert!(base.is_some());
        for (from, to) in [
            ("version: 1\n", "version: 1\n# more\nupstreams: { app: { targets: [\"127.0.0.1:1\"] } }\n"),
            ("header: x-key", "header: x-other"),
            ("audience: [a, b]", "audience:   [ \"a\" , 'b' ]"),
            ("https://id.test", "\"${env:TOLLGATE_NOT_SET:-https://id.test}\""),
        ] {
            assert!(BASE.contains(from));
            assert!(origin(&BASE.replacen(from, to, 1), "{}") == base, "{to}");
        }
    }

    #[test]
    fn everything_it_is_made_from_counts() {
        let base = origin(BASE, "{}");
        for (from, to) in [
            ("id.test", "id.other"),
            ("[a, b]", "[a]"),
            ("[a, b]", "[ab]"),
            ("scope: read", "scope: { any: [read] }"),
            ("scope: read", "scope: \"read\", n: 1"),
            ("  id: ", "  di: "),
            (
                "free: { limits: [1/s per consumer] }, pro: {}",
                "pro: {}, free: { limits: [1/s per consumer] }",
            ),
            ("1/s", "2/s"),
            ("plan: free", "plan: pro"),
            ("ids: [x]", "ids: [y]"),
            ("tags: [t]", "tags: [u]"),
            ("ann: {", "bob: {"),
            ("{ ann: { plan: free, ids: [x], tags: [t] } }", "{}"),
        ] {
            assert!(BASE.contains(from));
            assert!(origin(&BASE.replacen(from, to, 1), "{}") != base, "{to}");
        }
        assert!(origin(BASE, "{ }") != base, "the file of its keys");
        assert!(origin(&BASE.replacen("keys.json", "missing.json", 1), "{}").is_none());
    }
}
