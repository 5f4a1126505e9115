//! Wildcard filters, level by level.
//!
//! ```text
//! a/+/c  a/#            root ─ a ─┬─ + ─ c •
//!                                 └─ # •
//! ```
//!
//! The text of a level is *interned*: it stands once in [`Symbols`], however many filters hold it, and an
//! edge is three numbers. All literal edges stand in one table, keyed by parent and symbol; the edges of `+` and
//! `#` stand in the node. A topic's level is looked up at most once per match, and only if a node with
//! literal edges is reached at that depth.

use std::hash::Hash;

use ahash::{AHashMap, RandomState};
use slab::Slab;
use smallvec::SmallVec;

use super::list::List;
use super::text::Text;
use crate::table::Table;

/// Place of a node. The root is 0 and always there.
type NodeId = u32;
const ROOT: NodeId = 0;
const NONE: NodeId = u32::MAX;

/// Place of a level text.
type Symbol = u32;
const PLUS: Symbol = u32::MAX;
const HASH: Symbol = u32::MAX - 1;
/// No filter holds this text.
const UNKNOWN: Symbol = u32::MAX - 2;

#[derive(Debug)]
struct Node<K, V> {
    parent: NodeId,
    /// The edge that leads here: a level text, `PLUS` or `HASH`.
    symbol: Symbol,
    plus: NodeId,
    hash: NodeId,
    /// Number of edges with a level text.
    literals: u32,
    subscribers: List<K, V>,
}

impl<K, V> Node<K, V> {
    fn new(parent: NodeId, symbol: Symbol) -> Self {
        Self { parent, symbol, plus: NONE, hash: NONE, literals: 0, subscribers: List::Empty }
    }
}

#[derive(Debug)]
struct Edge {
    parent: NodeId,
    symbol: Symbol,
    child: NodeId,
}

/// The subscribers of wildcard filters.
#[derive(Debug)]
pub(super) struct Trie<K, V> {
    nodes: Slab<Node<K, V>>,
    edges: Table<Edge>,
    symbols: Symbols,
    hasher: RandomState,
    /// Number of patterns.
    patterns: usize,
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        let mut nodes = Slab::new();
        assert_eq!(nodes.insert(Node::new(NONE, UNKNOWN)), ROOT as usize);
        let hasher = RandomState::new();
        Self { nodes, edges: Table::default(), symbols: Symbols::new(hasher.clone()), hasher, patterns: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Trie<K, V> {
    pub fn patterns(&self) -> usize {
        self.patterns
    }

    pub fn get(&self, pattern: &str) -> &[(K, V)] {
        match self.node_of(pattern) {
            Some(id) => self.node(id).subscribers.as_slice(),
            None => &[],
        }
    }

    pub fn insert(&mut self, pattern: &str, key: K, value: V) -> Option<V> {
        let mut id = ROOT;
        for level in pattern.split('/') {
            id = self.child_or_new(id, level);
        }
        let subscribers = &mut self.node_mut(id).subscribers;
        let new = subscribers.is_empty();
        let old = subscribers.insert(key, value);
        self.patterns += usize::from(new);
        old
    }

    pub fn remove(&mut self, pattern: &str, key: K) -> Option<V> {
        let id = self.node_of(pattern)?;
        let subscribers = &mut self.node_mut(id).subscribers;
        let value = subscribers.remove(key)?;
        if subscribers.is_empty() {
            self.patterns -= 1;
            self.prune(id, pattern);
        }
        Some(value)
    }

    /// Calls `found` for the subscribers of each pattern that matches.
    pub fn matches(&self, topic: &str, found: &mut impl FnMut(&[(K, V)])) {
        if self.patterns == 0 {
            return;
        }
        let reserved = topic.starts_with('$');
        let mut levels = Levels::new(topic);
        // Depth first: at most two entries per level wait here.
        let mut waiting: SmallVec<[(NodeId, u32); 32]> = SmallVec::new();
        waiting.push((ROOT, 0));
        while let Some((id, depth)) = waiting.pop() {
            let node = self.node(id);
            let wildcards = depth > 0 || !reserved; // [MQTT-4.7.2-1]
            if wildcards && node.hash != NONE {
                found(self.node(node.hash).subscribers.as_slice()); // the parent level matches, too
            }
            if !levels.has(depth) {
                if !node.subscribers.is_empty() {
                    found(node.subscribers.as_slice());
                }
                continue;
            }
            if wildcards && node.plus != NONE {
                waiting.push((node.plus, depth + 1));
            }
            if node.literals > 0 {
                let symbol = levels.symbol(depth, &self.symbols);
                if let Some(child) = self.literal_child(id, symbol) {
                    waiting.push((child, depth + 1));
                }
            }
        }
    }

    /// The pattern of each node that has subscribers.
    pub fn pattern_texts(&self) -> impl Iterator<Item = String> {
        let texts = self.symbols.texts();
        let used = self.nodes.iter().filter(|(_, node)| !node.subscribers.is_empty());
        used.map(move |(id, _)| self.text_of(id as NodeId, &texts))
    }

    /// Nodes and level texts; both 0 when no filter is left.
    #[cfg(test)]
    pub fn footprint(&self) -> (usize, usize, usize) {
        (self.nodes.len() - 1, self.edges.len(), self.symbols.table.len())
    }

    fn node(&self, id: NodeId) -> &Node<K, V> {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<K, V> {
        &mut self.nodes[id as usize]
    }

    fn edge_hash(&self, parent: NodeId, symbol: Symbol) -> u64 {
        self.hasher.hash_one((parent, symbol))
    }

    fn literal_child(&self, parent: NodeId, symbol: Symbol) -> Option<NodeId> {
        if symbol == UNKNOWN {
            return None;
        }
        let is = |edge: &Edge| edge.parent == parent && edge.symbol == symbol;
        self.edges.find(self.edge_hash(parent, symbol), is).map(|edge| edge.child)
    }

    fn child(&self, parent: NodeId, level: &str) -> Option<NodeId> {
        match level {
            "+" => Some(self.node(parent).plus).filter(|id| *id != NONE),
            "#" => Some(self.node(parent).hash).filter(|id| *id != NONE),
            text => self.literal_child(parent, self.symbols.find(text)),
        }
    }

    fn node_of(&self, pattern: &str) -> Option<NodeId> {
        pattern.split('/').try_fold(ROOT, |id, level| self.child(id, level))
    }

    fn child_or_new(&mut self, parent: NodeId, level: &str) -> NodeId {
        if let Some(child) = self.child(parent, level) {
            return child;
        }
        let symbol = match level {
            "+" => PLUS,
            "#" => HASH,
            text => self.symbols.take(text),
        };
        let child = NodeId::try_from(self.nodes.insert(Node::new(parent, symbol))).expect("fewer than 2³² nodes");
        assert_ne!(child, NONE, "too many levels of filters");
        match symbol {
            PLUS => self.node_mut(parent).plus = child,
            HASH => self.node_mut(parent).hash = child,
            _ => {
                self.node_mut(parent).literals += 1;
                let hash = self.edge_hash(parent, symbol);
                let hasher = &self.hasher;
                let rehash = |edge: &Edge| hasher.hash_one((edge.parent, edge.symbol));
                self.edges.insert(hash, Edge { parent, symbol, child }, rehash);
            }
        }
        child
    }

    /// Removes the node of the pattern if it leads nowhere, then its parent if that leads nowhere any more, and
    /// so on.
    fn prune(&mut self, mut id: NodeId, pattern: &str) {
        for level in pattern.rsplit('/') {
            let node = self.node(id);
            if !node.subscribers.is_empty() || node.plus != NONE || node.hash != NONE || node.literals > 0 {
                return;
            }
            let Node { parent, symbol, .. } = self.nodes.remove(id as usize);
            self.unlink(parent, symbol, level);
            id = parent;
        }
        if self.nodes.len() == 1 {
            self.nodes.shrink_to_fit();
        }
    }

    fn unlink(&mut self, parent: NodeId, symbol: Symbol, level: &str) {
        match symbol {
            PLUS => self.node_mut(parent).plus = NONE,
            HASH => self.node_mut(parent).hash = NONE,
            _ => {
                self.node_mut(parent).literals -= 1;
                let hash = self.edge_hash(parent, symbol);
                let is = |edge: &Edge| edge.parent == parent && edge.symbol == symbol;
                let hasher = &self.hasher;
                let rehash = |edge: &Edge| hasher.hash_one((edge.parent, edge.symbol));
                self.edges.remove(hash, is, rehash).expect("every literal node has its edge");
                self.symbols.give_back(level);
            }
        }
    }

    fn text_of(&self, mut id: NodeId, texts: &AHashMap<Symbol, &str>) -> String {
        let mut levels: Vec<&str> = Vec::new();
        while id != ROOT {
            let node = self.node(id);
            levels.push(match node.symbol {
                PLUS => "+",
                HASH => "#",
                symbol => texts[&symbol],
            });
            id = node.parent;
        }
        levels.reverse();
        levels.join("/")
    }
}

/// The levels of a topic, split and looked up as far as a walk has come.
struct Levels<'a> {
    /// What is not split yet; `None` after the last level.
    rest: Option<&'a str>,
    known: SmallVec<[Level<'a>; 16]>,
}

#[derive(Clone, Copy)]
enum Level<'a> {
    Text(&'a str),
    Symbol(Symbol),
}

impl<'a> Levels<'a> {
    fn new(topic: &'a str) -> Self {
        Self { rest: Some(topic), known: SmallVec::new() }
    }

    /// Whether the topic has a level at this depth, counted from 0. Asked for depths in steps of at most 1.
    fn has(&mut self, depth: u32) -> bool {
        while self.known.len() <= depth as usize {
            let Some(rest) = self.rest else { return false };
            let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
            self.known.push(Level::Text(level));
            self.rest = rest;
        }
        true
    }

    /// The symbol of a level that is there.
    fn symbol(&mut self, depth: u32, symbols: &Symbols) -> Symbol {
        let level = &mut self.known[depth as usize];
        match *level {
            Level::Symbol(symbol) => symbol,
            Level::Text(text) => {
                let symbol = symbols.find(text);
                *level = Level::Symbol(symbol);
                symbol
            }
        }
    }
}

/// The texts of all levels, each once. A symbol is a number that no other text has at the same time.
#[derive(Debug)]
struct Symbols {
    table: Table<Interned>,
    /// Numbers that were given back.
    free: Vec<Symbol>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Interned {
    text: Text,
    symbol: Symbol,
    /// Number of edges with this text.
    uses: u32,
}

impl Symbols {
    fn new(hasher: RandomState) -> Self {
        Self { table: Table::default(), free: Vec::new(), hasher }
    }

    fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text.as_bytes())
    }

    fn find(&self, text: &str) -> Symbol {
        let is = |interned: &Interned| interned.text.as_bytes() == text.as_bytes();
        self.table.find(self.hash(text), is).map_or(UNKNOWN, |interned| interned.symbol)
    }

    /// The symbol of `text`, used once more.
    fn take(&mut self, text: &str) -> Symbol {
        let hash = self.hash(text);
        let is = |interned: &Interned| interned.text.as_bytes() == text.as_bytes();
        if let Some(known) = self.table.find_mut(hash, is) {
            known.uses += 1;
            return known.symbol;
        }
        let unused = || Symbol::try_from(self.table.len()).expect("fewer than 2³² level texts");
        let symbol = self.free.pop().unwrap_or_else(unused);
        assert!(symbol < UNKNOWN, "too many level texts");
        let hasher = &self.hasher;
        let rehash = |interned: &Interned| hasher.hash_one(interned.text.as_bytes());
        self.table.insert(hash, Interned { text: Text::new(text), symbol, uses: 1 }, rehash);
        symbol
    }

    /// `text` is used once less; forgotten after the last use.
    fn give_back(&mut self, text: &str) {
        let hash = self.hash(text);
        let is = |interned: &Interned| interned.text.as_bytes() == text.as_bytes();
        let known = self.table.find_mut(hash, is).expect("every edge's text stands in the table");
        known.uses -= 1;
        if known.uses > 0 {
            return;
        }
        self.free.push(known.symbol);
        let hasher = &self.hasher;
        self.table.remove(hash, is, |interned| hasher.hash_one(interned.text.as_bytes()));
        if self.table.len() == 0 {
            self.free = Vec::new(); // numbering starts anew: all numbers below the length are in use again
        }
    }

    /// All texts by symbol: for a report, not for each message.
    fn texts(&self) -> AHashMap<Symbol, &str> {
        self.table.iter().map(|interned| (interned.symbol, interned.text.as_str())).collect()
    }
}
