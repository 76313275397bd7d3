//! Values from outside (`${env:…}`, `${file:…}`, `${cred:…}`) are told as they are written, never as they are.

/// Puts values back to how they are written, in one pass: what was put back may hold values in its turn
/// (`${env:HOST:-localhost}`). ASCII case is ignored, since hosts are told in lower case. `secrets` must be in lower case,
/// longest first.
pub(super) fn put_back<W: AsRef<str>>(text: &str, secrets: &[(String, W)]) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let here = lower.get(lower.len() - rest.len()..).unwrap_or_default();
        let length = match secrets.iter().find(|(value, _)| here.starts_with(value.as_str())) {
            Some((value, written)) => {
                out.push_str(written.as_ref());
                value.len()
            }
            None => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// Brings secrets into the order and case that [`put_back`] wants; of values of up to `shortest` bytes nothing is hidden:
/// they would be found everywhere.
pub(super) fn in_order<W>(mut secrets: Vec<(String, W)>, shortest: usize) -> Vec<(String, W)> {
    secrets.retain(|(value, _)| value.len() > shortest);
    secrets.iter_mut().for_each(|(value, _)| value.make_ascii_lowercase());
    secrets.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_back_is_not_looked_at_again() {
        let secrets = vec![("env:".to_owned(), "${env:X:-env:}".to_owned()); 60];
        assert_eq!(put_back("a env: é ENV: b", &secrets), "a ${env:X:-env:} é ${env:X:-env:} b");
    }

    #[test]
    fn longer_values_come_first_in_any_case() {
        let secrets = [("aBcd", "S"), ("xAbcdefé", "L")].map(|(value, written)| (value.to_owned(), written));
        assert_eq!(put_back("éxAbcdefé abcdé", &in_order(secrets.to_vec(), 3)), "éL Sé");
    }
}
