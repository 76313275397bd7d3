//! Defaults as the doc comments state them: `Default X.`, `Default: words.` or `X (default)`.

/// A description without the sentence that states the default, and the default.
pub(super) fn split(description: &str) -> (String, Option<String>) {
    if let Some((before, sentence)) = description.split_once("Default") {
        let (default, after) = sentence_end(sentence);
        let meaning = format!("{}{after}", before.trim_end());
        return (meaning.trim().to_owned(), Some(default.trim_start_matches([':', ' ']).to_owned()));
    }
    let marked = description.split_once(" (default)").and_then(|(before, _)| marked(before));
    (description.to_owned(), marked)
}

/// The text up to the end of a sentence, and what follows. A dot in a word or in code ends none.
fn sentence_end(text: &str) -> (&str, &str) {
    let end = text.find(". ").or_else(|| text.strip_suffix('.').map(str::len)).unwrap_or(text.len());
    let (sentence, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (sentence, rest.strip_prefix('.').unwrap_or(rest))
}

/// The word that `(default)` stands behind: the last code of its clause, else the last word.
fn marked(before: &str) -> Option<String> {
    let clause = before.rsplit([',', ':', ';']).next()?;
    let code = clause.rsplit('`').nth(1).filter(|code| !code.is_empty());
    code.map(|code| format!("`{code}`")).or_else(|| clause.split_whitespace().next_back().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_found() {
        for (description, meaning, default) in [
            ("How long. Default `30s`.", "How long.", Some("`30s`")),
            (
                "Most series; beyond is counted in one. Default 20000.",
                "Most series; beyond is counted in one.",
                Some("20000"),
            ),
            ("Hosts: exact. Default: every host.", "Hosts: exact.", Some("every host")),
            (
                "A path. Default `unix:/run/a.sock`. An address needs a token.",
                "A path. An address needs a token.",
                Some("`unix:/run/a.sock`"),
            ),
            (
                "A number, or `auto` for one per core (default).",
                "A number, or `auto` for one per core (default).",
                Some("`auto`"),
            ),
            (
                "The `client`'s (default), or a name.",
                "The `client`'s (default), or a name.",
                Some("`client`"),
            ),
            ("301, 307 or 308 (default).", "301, 307 or 308 (default).", Some("308")),
            ("Fields to remove.", "Fields to remove.", None),
        ] {
            assert_eq!(split(description), (meaning.to_owned(), default.map(str::to_owned)));
        }
    }
}
