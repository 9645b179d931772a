//! The location of each value in the text of a YAML file.
//!
//! The types of the pipeline file do not know their lines. This index, built from the parser's events, maps a path such as
//! `["tables", "account", "key"]` to the bytes that the user wrote. An alias (`*name`) and a merge (`<<: *name`) map to
//! the location of the value itself.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

/// The maximum number of indexed values; the location of later ones is that of their nearest ancestor.
const MAX_NODES: usize = 1_000_000;

/// The maximum number of consecutive aliases.
const MAX_ALIASES: usize = 64;

/// An index from paths to locations in the text.
#[derive(Debug, Default)]
pub struct Locations {
    /// The nodes; the first one is the document.
    nodes: Vec<Node>,
    /// The entries of mappings by key and of sequences by index.
    children: HashMap<(usize, String), usize>,
}

#[derive(Debug, Default)]
struct Node {
    key: Option<Range<usize>>,
    value: Range<usize>,
    /// A scalar's text, and whether it is unquoted.
    scalar: Option<(String, bool)>,
    /// The value that an alias stands for.
    alias: Option<usize>,
    /// The values that `<<` merges into this mapping.
    merged: Vec<usize>,
}

impl Locations {
    /// Reads the first document of a text.
    ///
    /// # Errors
    ///
    /// Returns the first mistake if the text is not YAML.
    pub fn try_new(text: &str) -> Result<Self, ScanError> {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event?;
            if !builder.add(&event, bytes(text, &span)) {
                break;
            }
        }
        Ok(builder.locations)
    }

    /// Returns the bytes of the key at a path, or of its nearest ancestor; `None` if that has no key, like a list element.
    pub fn key(&self, path: &[String]) -> Option<Range<usize>> {
        self.nodes.get(self.nearest(path)).and_then(|node| node.key.clone())
    }

    /// Returns the bytes of the value at a path, or of its nearest ancestor; `None` if there is no document.
    pub fn value(&self, path: &[String]) -> Option<Range<usize>> {
        self.nodes.get(self.nearest(path)).map(|node| node.value.clone())
    }

    /// Returns the scalar at exactly this path, without quotes and escapes.
    pub fn scalar(&self, path: &[String]) -> Option<&str> {
        self.exact(path)?.scalar.as_ref().map(|(text, _)| text.as_str())
    }

    /// Returns the scalar at exactly this path, if it is unquoted.
    pub fn plain(&self, path: &[String]) -> Option<&str> {
        self.exact(path)?.scalar.as_ref().and_then(|(text, plain)| plain.then_some(text.as_str()))
    }

    fn exact(&self, path: &[String]) -> Option<&Node> {
        let mut node = 0;
        for segment in path {
            node = self.child(node, segment)?;
        }
        self.nodes.get(self.resolved(node))
    }

    fn nearest(&self, path: &[String]) -> usize {
        let mut node = 0;
        for segment in path {
            match self.child(node, segment) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }

    fn child(&self, node: usize, segment: &str) -> Option<usize> {
        let mut seen = HashSet::new();
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            let node = self.resolved(node);
            if !seen.insert(node) {
                continue;
            }
            if let Some(child) = self.children.get(&(node, segment.to_owned())) {
                return Some(*child);
            }
            // If several mappings are merged, the first one has precedence.
            next.extend(self.nodes.get(node)?.merged.iter().rev());
        }
        None
    }

    fn resolved(&self, mut node: usize) -> usize {
        for _ in 0..MAX_ALIASES {
            match self.nodes.get(node).and_then(|node| node.alias) {
                Some(target) => node = target,
                None => break,
            }
        }
        node
    }
}

/// Returns a span's bytes, clamped to the text and to character boundaries.
fn bytes(text: &str, span: &Span) -> Range<usize> {
    let range = span.byte_range().unwrap_or(0..0);
    let start = text.floor_char_boundary(range.start);
    start..text.floor_char_boundary(range.end.max(start))
}

/// A collection that is being read.
struct Open {
    node: usize,
    /// Whether it is in flow style, `[…]` or `{…}`.
    flow: bool,
    kind: Kind,
    /// The end of its last entry, because a block collection ends where the next token begins.
    end: usize,
}

enum Kind {
    Sequence {
        length: usize,
        /// The mapping whose `<<` is this list.
        merges_into: Option<usize>,
    },
    Mapping {
        key: Option<(String, Range<usize>)>,
    },
    /// A collection in a key, whose parts have no path.
    Hidden,
}

#[derive(Default)]
struct Builder {
    locations: Locations,
    open: Vec<Open>,
    anchors: HashMap<usize, usize>,
}

impl Builder {
    /// Processes an event; returns `false` after the last relevant one.
    fn add(&mut self, event: &Event<'_>, span: Range<usize>) -> bool {
        if self.locations.nodes.len() >= MAX_NODES {
            return false;
        }
        let end = span.end;
        match event {
            Event::Scalar(text, ..) if self.takes_key() => self.set_key(Some((text.to_string(), span))),
            Event::Scalar(text, style, anchor, _) => {
                let scalar = Some((text.to_string(), *style == ScalarStyle::Plain));
                self.place(Node { value: span, scalar, ..Node::default() }, *anchor);
                self.reach(end);
            }
            Event::Alias(anchor) if self.takes_key() => {
                let node = self.anchors.get(anchor).and_then(|node| self.locations.nodes.get(*node));
                let text = node.and_then(|node| node.scalar.as_ref()).map(|(text, _)| text.clone());
                self.set_key(text.map(|text| (text, span)));
            }
            Event::Alias(anchor) => {
                let alias = self.anchors.get(anchor).copied();
                self.place(Node { value: span, alias, ..Node::default() }, 0);
                self.reach(end);
            }
            Event::SequenceStart(style, anchor, _) => {
                let merges_into = self.merging();
                self.begin(*style, *anchor, span, Kind::Sequence { length: 0, merges_into });
            }
            Event::MappingStart(style, anchor, _) => self.begin(*style, *anchor, span, Kind::Mapping { key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.finish(end),
            Event::DocumentEnd => return false,
            _ => {}
        }
        true
    }

    /// Returns whether the next node is a mapping's key.
    fn takes_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.kind, Kind::Mapping { key: None }))
    }

    /// Returns the mapping whose `<<` is the next node.
    fn merging(&self) -> Option<usize> {
        match self.open.last()? {
            Open { node, kind: Kind::Mapping { key: Some((key, _)) }, .. } if key == "<<" => Some(*node),
            Open { kind: Kind::Sequence { merges_into, .. }, .. } => *merges_into,
            _ => None,
        }
    }

    /// Stores the key of the next value; a key that is not a text gets a name that no path has.
    fn set_key(&mut self, found: Option<(String, Range<usize>)>) {
        if let Some(Open { kind: Kind::Mapping { key }, .. }) = self.open.last_mut() {
            *key = Some(found.unwrap_or_else(|| ("\0".to_owned(), 0..0)));
        }
    }

    /// Adds a node to the open collection.
    fn place(&mut self, mut node: Node, anchor: usize) -> usize {
        let index = self.locations.nodes.len();
        if let Some(mapping) = self.merging()
            && let Some(mapping) = self.locations.nodes.get_mut(mapping)
        {
            mapping.merged.push(index);
        }
        let place = self.open.last_mut().and_then(|open| {
            let name = match &mut open.kind {
                Kind::Sequence { length, .. } => {
                    *length += 1;
                    (*length - 1).to_string()
                }
                Kind::Mapping { key } => {
                    let (name, span) = key.take()?;
                    node.key = Some(span);
                    name
                }
                Kind::Hidden => return None,
            };
            Some((open.node, name))
        });
        if let Some(place) = place {
            self.locations.children.insert(place, index);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, index);
        }
        self.locations.nodes.push(node);
        index
    }

    fn begin(&mut self, style: StructureStyle, anchor: usize, span: Range<usize>, kind: Kind) {
        let hidden = self.takes_key() || self.open.last().is_some_and(|open| matches!(open.kind, Kind::Hidden));
        let end = span.end;
        let flow = style == StructureStyle::Flow;
        let (node, kind) = if hidden {
            (usize::MAX, Kind::Hidden)
        } else {
            (self.place(Node { value: span, ..Node::default() }, anchor), kind)
        };
        self.open.push(Open { node, flow, kind, end });
    }

    fn finish(&mut self, end: usize) {
        let Some(closed) = self.open.pop() else { return };
        let end = if closed.flow { end } else { closed.end };
        if let Some(node) = self.locations.nodes.get_mut(closed.node) {
            node.value.end = end.max(node.value.start);
        }
        if matches!(closed.kind, Kind::Hidden) && self.takes_key() {
            self.set_key(None);
        }
        self.reach(end);
    }

    /// Completes an entry of the open collection.
    fn reach(&mut self, end: usize) {
        if let Some(open) = self.open.last_mut() {
            open.end = open.end.max(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    fn value<'t>(text: &'t str, path: &[String]) -> &'t str {
        &text[Locations::try_new(text).unwrap().value(path).unwrap()]
    }

    fn key<'t>(text: &'t str, path: &[String]) -> Option<&'t str> {
        Locations::try_new(text).unwrap().key(path).map(|span| &text[span])
    }

    #[test]
    fn a_path_leads_to_its_key_and_its_value() {
        let text = "a:\n  - x: 1\n    y: [p, {q: r}]\n  - two\nb: end\n";
        assert_eq!(value(text, &path!["a", 0, "x"]), "1");
        assert_eq!(key(text, &path!["a", 0, "x"]), Some("x"));
        assert_eq!(value(text, &path!["a", 0, "y", 1, "q"]), "r");
        assert_eq!(value(text, &path!["a", 0, "y"]), "[p, {q: r}]");
        assert_eq!(value(text, &path!["a", 1]), "two");
        assert_eq!(key(text, &path!["a", 1]), None);
        assert_eq!(value(text, &path!["a"]), "- x: 1\n    y: [p, {q: r}]\n  - two");
        assert_eq!(value(text, &path!["b"]), "end");
    }

    #[test]
    fn letters_of_several_bytes_shift_nothing() {
        let text = "# Übergröße 🎉\nstraße: 'grün ä'\nmaß: [ö, 𝄞𝄞, ü]\n";
        assert_eq!(value(text, &path!["straße"]), "'grün ä'");
        assert_eq!(key(text, &path!["maß"]), Some("maß"));
        assert_eq!(value(text, &path!["maß", 2]), "ü");
    }

    #[test]
    fn a_path_that_is_not_there_falls_back_to_its_nearest_ancestor() {
        let text = "a:\n  b: {c: 1}\n";
        assert_eq!(value(text, &path!["a", "b", "nowhere", 7]), "{c: 1}");
        assert_eq!(key(text, &path!["a", "b", "nowhere"]), Some("b"));
        assert_eq!(key(text, &path!["nowhere"]), None);
        assert_eq!(Locations::try_new(text).unwrap().scalar(&path!["a", "b", "nowhere"]), None);
    }

    #[test]
    fn an_alias_and_a_merge_lead_to_where_the_value_is_written() {
        let text = "base: &base\n  x: one\nother: &other {z: three}\na: *base\nb:\n  <<: *base\n  y: two\nc:\n  <<: [*base, *other]\n";
        assert_eq!(value(text, &path!["a", "x"]), "one");
        assert_eq!(value(text, &path!["a"]), "*base");
        assert_eq!(value(text, &path!["b", "x"]), "one");
        assert_eq!(value(text, &path!["b", "y"]), "two");
        assert_eq!(value(text, &path!["c", "x"]), "one");
        assert_eq!(value(text, &path!["c", "z"]), "three");
    }

    #[test]
    fn a_scalar_is_given_as_it_was_written_without_its_quotes() {
        let locations = Locations::try_new("a: \"x\\ty\"\nb: 007\n").unwrap();
        assert_eq!(locations.scalar(&path!["a"]), Some("x\ty"));
        assert_eq!(locations.plain(&path!["a"]), None);
        assert_eq!(locations.plain(&path!["b"]), Some("007"));
    }

    #[test]
    fn keys_that_are_collections_have_no_path_and_disturb_no_other() {
        let text = "? [a, {b: c}]\n: d\ne: f\n";
        assert_eq!(value(text, &path!["e"]), "f");
    }

    #[test]
    fn text_without_yaml_is_an_error_and_empty_text_is_not() {
        assert!(Locations::try_new("a: [").is_err());
        assert!(Locations::try_new("a\0").is_err());
        assert_eq!(Locations::try_new("").unwrap().value(&path!["a"]), None);
    }
}
