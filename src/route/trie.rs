//! Path patterns as a tree of segments, shared by all hosts and priorities; each of them has a root of its own.

use crate::value::{PathPattern, Segment};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// A place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// A tree of segments. All edges with text are in one hash table, keyed by parent and text, so that a step costs the same
/// in a large tree as in a small one. The hash needs no secret: what is in the table comes from the configuration.
#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
}

/// What ends at a place: numbers of whatever the owner of the tree counts.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Patterns that end here.
    pub(super) exact: Vec<u32>,
    /// Patterns whose tail begins here.
    pub(super) tails: Vec<u32>,
    param: Option<NodeId>,
    has_literals: bool,
}

#[derive(Debug)]
struct Edge {
    parent: NodeId,
    child: NodeId,
    text: Box<str>,
}

impl Trie {
    /// A new place that no edge leads to: a root, until one does.
    pub(super) fn add_node(&mut self) -> NodeId {
        // Every node comes from a segment of the configuration; four thousand million do not fit in memory.
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node::default());
        id
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// The child for a literal segment.
    pub(super) fn literal(&self, parent: NodeId, text: &str) -> Option<NodeId> {
        if !self.node(parent)?.has_literals {
            return None;
        }
        let edge = self.edges.find(hash(parent, text), |edge| edge.parent == parent && *edge.text == *text);
        edge.map(|edge| edge.child)
    }

    /// The child for a parameter.
    pub(super) fn param(&self, parent: NodeId) -> Option<NodeId> {
        self.node(parent)?.param
    }

    /// Puts a number where the pattern ends.
    pub(super) fn insert(&mut self, root: NodeId, pattern: &PathPattern, number: u32) {
        let mut id = root;
        for segment in pattern.segments() {
            id = self.grow(id, segment);
        }
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            let ends = if pattern.tail().is_some() { &mut node.tails } else { &mut node.exact };
            ends.push(number);
        }
    }

    fn grow(&mut self, parent: NodeId, segment: &Segment) -> NodeId {
        let existing = match segment {
            Segment::Literal(text) => self.literal(parent, text),
            Segment::Param(_) => self.param(parent),
        };
        if let Some(child) = existing {
            return child;
        }
        let child = self.add_node();
        let node = self.nodes.get_mut(parent.0 as usize);
        match segment {
            Segment::Literal(text) => {
                let edge = Edge { parent, child, text: text.clone() };
                self.edges.insert_unique(hash(parent, text), edge, |edge| hash(edge.parent, &edge.text));
                node.into_iter().for_each(|node| node.has_literals = true);
            }
            Segment::Param(_) => node.into_iter().for_each(|node| node.param = Some(child)),
        }
        child
    }
}

fn hash(parent: NodeId, text: &str) -> u64 {
    FixedState::with_seed(u64::from(parent.0)).hash_one(text)
}
