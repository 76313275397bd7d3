//! Where things stand: the parsers count characters, an [`At`] counts bytes.

use crate::value::At;
use saphyr_parser::Span;

/// Characters between two remembered offsets: small against the time of a parse, small against the memory of a text.
const STRIDE: usize = 64;

/// A text and its number, with a table from characters to bytes.
pub(super) struct Places<'t> {
    pub(super) file: u16,
    pub(super) text: &'t str,
    length: usize,
    /// Byte offset of every [`STRIDE`]th character; empty when both counts are the same.
    offsets: Vec<usize>,
}

impl<'t> Places<'t> {
    /// No place reaches beyond `length` bytes.
    pub(super) fn new(file: u16, text: &'t str, length: usize) -> Self {
        let offsets = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().step_by(STRIDE).map(|(offset, _)| offset).collect(),
        };
        Places { file, text, length, offsets }
    }

    /// The byte where a character begins; the end of the text for any later one.
    pub(super) fn byte(&self, character: usize) -> usize {
        if self.offsets.is_empty() {
            return character.min(self.text.len());
        }
        let Some(offset) = self.offsets.get(character / STRIDE) else { return self.text.len() };
        let rest = self.text.get(*offset..).unwrap_or_default();
        rest.char_indices().nth(character % STRIDE).map_or(self.text.len(), |(more, _)| offset + more)
    }

    pub(super) fn at(&self, span: Span) -> At {
        self.range(self.byte(span.start.index()), self.byte(span.end.index()))
    }

    /// The single character that stands at an index.
    pub(super) fn point(&self, character: usize) -> At {
        let start = self.byte(character);
        let length = self.text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        self.range(start, start + length)
    }

    pub(super) fn range(&self, start: usize, end: usize) -> At {
        let offset = |byte: usize| u32::try_from(byte.min(self.length)).unwrap_or(u32::MAX);
        At { file: self.file, start: offset(start), end: offset(end.max(start)) }
    }

    /// The text of a place.
    pub(super) fn slice(&self, at: At) -> &'t str {
        self.text.get(at.start as usize..at.end as usize).unwrap_or_default()
    }

    /// The text before and from a place.
    pub(super) fn around(&self, at: At) -> (&'t str, &'t str) {
        self.text.split_at_checked(at.start as usize).unwrap_or((self.text, ""))
    }

    /// The place cut at the end of its first line.
    pub(super) fn first_line(&self, at: At) -> At {
        let line = self.slice(at).lines().next().unwrap_or_default().trim_end();
        At { end: at.start.saturating_add(u32::try_from(line.len()).unwrap_or(u32::MAX)), ..at }
    }
}
