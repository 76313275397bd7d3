//! The first reading: the tree with positions, built from saphyr-parser's events without recursion.
//!
//! saphyr's own loader recurses once a level; its event iterator keeps a stack on the heap, and so do we.

use super::places::Places;
use super::{Entry, Findings, Kind, MAX_DEPTH, MAX_NODES, Node, Scalar};
use crate::value::{At, Code, Issue, Spanned};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::collections::HashMap;

/// The tree, all scalars still text, and whether it is the whole document: YAML outside the subset was reported and cannot
/// be read on.
pub(super) fn read(places: &Places<'_>, findings: &mut Findings<'_>) -> Result<(Node, bool), Issue> {
    let mut tree = Tree::new(places, findings);
    for event in Parser::new_from_str(places.text) {
        let (event, span) = event.map_err(|error| syntax(&error, places))?;
        if tree.on_event(event, span)? == Flow::Stop {
            break;
        }
    }
    let whole = tree.whole;
    let nothing = || Node { at: places.range(0, 0), kind: text("", true) };
    Ok((tree.root.unwrap_or_else(nothing), whole))
}

#[derive(PartialEq)]
enum Flow {
    On,
    Stop,
}

/// The tree while it grows.
struct Tree<'a, 'f> {
    places: &'a Places<'a>,
    findings: &'a mut Findings<'f>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    /// Values made so far, copies included.
    nodes: usize,
    root: Option<Node>,
    whole: bool,
}

/// A collection that has begun.
struct Open {
    at: At,
    anchor: usize,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Spanned<String>> },
}

/// A value that aliases may repeat.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl<'a, 'f> Tree<'a, 'f> {
    fn new(places: &'a Places<'a>, findings: &'a mut Findings<'f>) -> Self {
        Tree {
            places,
            findings,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            root: None,
            whole: true,
        }
    }

    fn on_event(&mut self, event: Event<'_>, span: Span) -> Result<Flow, Issue> {
        let at = self.places.at(span);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                let issue = Issue::new(Code::SUBSET, "a second document begins here");
                self.outside(
                    issue.at(at).help("keep one document in a file; use `include` for several files"),
                );
                return Ok(Flow::Stop);
            }
            Event::Scalar(value, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.scalar(&value, style, anchor, self.bare(at))?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.begin(at, anchor, Content::Seq(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.begin(at, anchor, Content::Map { entries: Vec::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at)?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => {}
        }
        Ok(Flow::On)
    }

    /// Reports YAML that can be parsed but is not accepted.
    fn outside(&mut self, issue: Issue) {
        self.whole = false;
        self.findings.add(issue);
    }

    fn refuse_tag(&mut self, tagged: bool, at: At) {
        if tagged {
            let written = self.places.slice(at).split_whitespace().find(|word| word.starts_with('!'));
            let issue = Issue::new(
                Code::SUBSET,
                format!("tags such as `{}` are not accepted", written.unwrap_or("!")),
            );
            self.outside(issue.at(self.places.first_line(at)).help("if the `!` is text, quote the value"));
        }
    }

    /// The place without the anchor and tag in front.
    fn bare(&self, at: At) -> At {
        let mut rest = self.places.slice(at);
        let whole = rest.len();
        while rest.starts_with(['&', '!']) {
            rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest).trim_start();
        }
        let skipped = u32::try_from(whole - rest.len()).unwrap_or(0);
        At { start: at.start.saturating_add(skipped).min(at.end), ..at }
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, anchor: usize, at: At) -> Result<(), Issue> {
        let plain = style == ScalarStyle::Plain;
        // The parser places an empty value on whatever token comes next.
        let at = match style {
            ScalarStyle::Plain if value.is_empty() => At { end: at.start, ..at },
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => self.quoted(at),
            _ => at,
        };
        self.spend(1, at)?;
        self.add(Node { at, kind: text(value, plain) }, anchor)
    }

    /// The place up to the closing quote: the parser's reaches over the comment behind it.
    fn quoted(&self, at: At) -> At {
        let text = self.places.slice(at).as_bytes();
        let quote = text.first();
        let mut length = 1;
        while let Some(byte) = text.get(length) {
            length += match byte {
                b'\\' if quote == Some(&b'"') => 2,
                b'\'' if quote == Some(byte) && text.get(length + 1) == quote => 2,
                _ if quote == Some(byte) => break,
                _ => 1,
            };
        }
        let end = at.start.saturating_add(u32::try_from(length + 1).unwrap_or(u32::MAX));
        At { end: end.min(at.end), ..at }
    }

    fn begin(&mut self, at: At, anchor: usize, content: Content) -> Result<(), Issue> {
        self.spend(1, at)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep().at(self.places.first_line(at)));
        }
        self.open.push(Open { at: self.bare(at), anchor, content });
        Ok(())
    }

    fn end(&mut self, end: At) -> Result<(), Issue> {
        let Some(Open { at, anchor, content }) = self.open.pop() else { return Ok(()) };
        let at = self.extent(at, end);
        let kind = match content {
            Content::Seq(items) => Kind::Seq(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        self.add(Node { at, kind }, anchor)
    }

    /// A flow collection up to its bracket, or to the end of its first line; a block collection stays where it begins.
    fn extent(&self, at: At, end: At) -> At {
        match self.is_flow(at) {
            // The bracket's own range reaches over the comment behind it.
            true => self.places.first_line(At { end: end.start.saturating_add(1), ..at }),
            false => at,
        }
    }

    fn is_flow(&self, begin: At) -> bool {
        self.places.slice(begin).starts_with(['{', '['])
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Issue> {
        let name = self.places.slice(at);
        let Some(Anchored { node, nodes, depth }) = self.anchors.get(&anchor) else {
            return Err(
                Issue::new(Code::SUBSET, format!("alias `{name}` refers to a value that holds it")).at(at)
            );
        };
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep().at(at));
        }
        let (node, nodes) = (node.clone(), *nodes);
        self.spend(nodes, at)?;
        if matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. })) {
            self.outside(
                Issue::new(Code::SUBSET, "an alias cannot be a key").at(at).help("write the key out"),
            );
        }
        self.add(node, 0)
    }

    fn spend(&mut self, nodes: usize, at: At) -> Result<(), Issue> {
        self.nodes += nodes;
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let issue = Issue::new(Code::TOO_MUCH, format!("more than {MAX_NODES} values, aliases expanded"));
        Err(issue.at(self.places.first_line(at)))
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Issue> {
        if anchor > 0 {
            let (nodes, depth) = measure(&node);
            // The copy that is kept counts too: anchors in anchors would otherwise hold far more than the text.
            self.spend(nodes, node.at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { content: Content::Seq(items), .. }) => items.push(node),
            Some(Open { content: Content::Map { entries, key: key @ Some(_) }, .. }) => {
                entries.extend(key.take().map(|key| Entry { key, value: node }));
            }
            Some(Open { content: Content::Map { key: None, .. }, .. }) => self.add_key(node),
        }
        Ok(())
    }

    fn add_key(&mut self, node: Node) {
        let at = node.at;
        let (word, plain) = match &node.kind {
            Kind::Scalar(scalar) => (scalar.value.as_str().unwrap_or_default(), scalar.plain),
            _ => {
                let issue = Issue::new(Code::SUBSET, "a key must be text, not a map or a list");
                self.outside(issue.at(at).help("if braces or brackets are part of the text, quote it"));
                ("", false)
            }
        };
        match word {
            "<<" if plain => {
                let issue = Issue::new(Code::SUBSET, "merge keys (`<<`) are not accepted");
                self.outside(issue.at(at).help("write the entries out, or put them under `defaults`"));
            }
            "" if plain => self.outside(Issue::new(Code::SUBSET, "a key is missing before `:`").at(at)),
            _ => {}
        }
        let key = Spanned { value: word.to_owned(), at };
        let flow = self.open.last().is_some_and(|open| self.is_flow(open.at));
        if let Some(Open { at: begin, content: Content::Map { entries, key: slot }, .. }) =
            self.open.last_mut()
        {
            if entries.is_empty() && !flow {
                *begin = at;
            }
            *slot = Some(key);
        }
    }
}

fn text(value: &str, plain: bool) -> Kind {
    Kind::Scalar(Scalar { value: value.into(), plain, secret: false, written: None })
}

/// Number of values and levels.
fn measure(node: &Node) -> (usize, usize) {
    let children: &mut dyn Iterator<Item = &Node> = match &node.kind {
        Kind::Scalar(_) | Kind::Refused => return (1, 0),
        Kind::Seq(items) => &mut items.iter(),
        Kind::Map(entries) => &mut entries.iter().map(|entry| &entry.value),
    };
    let (nodes, depth) =
        children.map(measure).fold((1, 0), |(n, d), (nodes, depth)| (n + nodes, d.max(depth)));
    (nodes, depth + 1)
}

fn too_deep() -> Issue {
    Issue::new(Code::TOO_MUCH, format!("more than {MAX_DEPTH} levels deep"))
}

/// One finding from the parser's error, with the help that fits what people usually meant.
fn syntax(error: &ScanError, places: &Places<'_>) -> Issue {
    let at = places.point(error.marker().index());
    let (before, from) = places.around(at);
    if error.info() == "recursion limit exceeded" {
        return too_deep().at(at);
    }
    let glued = |ends: &[char]| before.ends_with(|c: char| ends.contains(&c) || c.is_alphanumeric());
    if (from.starts_with(['{', '[']) && glued(&['$', '/', '-', '_', '.', ':', '}', ']']))
        || before.ends_with(['}', ']'])
    {
        return Issue::new(
            Code::QUOTE_THIS,
            "quote this value: braces and brackets end a value that has no quotes",
        )
        .at(at)
        .label("a new value begins here")
        .help("write for example `\"${path.id}\"` or `\"GET /orders/{id}\"`");
    }
    if error.info().ends_with("unknown anchor") {
        let name = from.split([' ', ',', ']', '}', '\n', '\r']).next().unwrap_or_default();
        let end = at.start as usize + name.len();
        return Issue::new(Code::QUOTE_THIS, format!("quote this value: `{name}` is read as an alias"))
            .at(places.range(at.start as usize, end))
            .help(format!("write `\"{name}\"`"));
    }
    let issue =
        Issue::new(Code::SYNTAX, format!("not valid YAML: {}", error.info().replace(['`', '\''], "\"")))
            .at(at);
    match from.chars().next() {
        Some('@' | '`' | '%') => issue.help("quote a value that begins with this character"),
        Some('\t') => issue.help("indent with spaces, not with tabs"),
        _ if error.info().contains("tab") => issue.help("indent with spaces, not with tabs"),
        _ => issue,
    }
}
