//! Topic patterns in an immutable trie: adding or removing one copies only the path to it, so that readers keep
//! the old trie and 100 000 patterns change one at a time without rebuilding anything.

use std::sync::Arc;

use crate::exchange::Targets;

/// One word deeper in the trie.
#[derive(Clone, Default)]
struct Node {
    words: imbl::HashMap<Box<[u8]>, Arc<Node>>,
    /// `*`: exactly one word.
    star: Option<Arc<Node>>,
    /// `#`: zero or more words.
    hash: Option<Arc<Node>>,
    targets: Targets,
}

impl Node {
    fn is_bare(&self) -> bool {
        self.words.is_empty() && self.star.is_none() && self.hash.is_none() && self.targets.is_empty()
    }

    fn child(&self, word: &[u8]) -> Option<&Arc<Self>> {
        match word {
            b"*" => self.star.as_ref(),
            b"#" => self.hash.as_ref(),
            _ => self.words.get(word),
        }
    }

    fn set_child(&mut self, word: &[u8], child: Self) {
        let child = (!child.is_bare()).then(|| Arc::new(child));
        match (word, child) {
            (b"*", child) => self.star = child,
            (b"#", child) => self.hash = child,
            (_, Some(child)) => drop(self.words.insert(word.into(), child)),
            (_, None) => drop(self.words.remove(word)),
        }
    }

    /// A copy with the node at `words` changed.
    fn edited(&self, words: &[&[u8]], edit: &mut dyn FnMut(&mut Targets)) -> Self {
        let mut copy = self.clone();
        match words.split_first() {
            None => edit(&mut copy.targets),
            Some((word, rest)) => {
                let child = match self.child(word) {
                    Some(child) => child.edited(rest, edit),
                    None => Self::default().edited(rest, edit),
                };
                copy.set_child(word, child);
            }
        }
        copy
    }
}

/// Patterns with the targets bound by each.
#[derive(Clone, Default)]
pub struct TopicTrie {
    root: Arc<Node>,
}

/// The words of a key: none in an empty key, else one more than there are dots.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|&byte| byte == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

impl TopicTrie {
    /// Changes the targets of one pattern.
    pub fn edit(&mut self, pattern: &[u8], mut edit: impl FnMut(&mut Targets)) {
        let words: Vec<&[u8]> = words(pattern).collect();
        self.root = Arc::new(self.root.edited(&words, &mut edit));
    }

    /// Hands the targets of every pattern that matches `key` to `found`, and whether the pattern begins with a
    /// wildcard; a target may come more than once.
    ///
    /// Follows all patterns at the same time, word by word, so that the cost is bounded by words times nodes also
    /// for patterns with many `#`.
    pub fn matches(&self, key: &[u8], mut found: impl FnMut(&Targets, bool)) {
        let mut here = Places { root: &self.root, states: Vec::new() };
        let mut next = Places { root: &self.root, states: Vec::new() };
        here.enter(&self.root, false, false);
        for word in words(key) {
            next.clear();
            for at in 0..here.states.len() {
                let Place { node, stays, by_wildcard } = here.states[at];
                if stays {
                    next.enter(node, true, by_wildcard);
                }
                if let Some(child) = node.words.get(word) {
                    next.enter(child, false, by_wildcard);
                }
                if let Some(child) = &node.star {
                    next.enter(child, false, by_wildcard || std::ptr::eq(node, here.root));
                }
            }
            std::mem::swap(&mut here, &mut next);
        }
        for place in &here.states {
            if !place.node.targets.is_empty() {
                found(&place.node.targets, place.by_wildcard);
            }
        }
    }
}

/// A node that the words so far can have led to.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a Node,
    /// A `#` node, which may stay where it is for another word.
    stays: bool,
    /// The way to it began with a wildcard.
    by_wildcard: bool,
}

/// The nodes that the words so far can have led to.
struct Places<'a> {
    root: &'a Node,
    states: Vec<Place<'a>>,
}

impl<'a> Places<'a> {
    fn clear(&mut self) {
        self.states.clear();
    }

    fn enter(&mut self, node: &'a Node, stays: bool, by_wildcard: bool) {
        if self.states.iter().any(|known| std::ptr::eq(known.node, node)) {
            return;
        }
        self.states.push(Place { node, stays, by_wildcard });
        if let Some(hash) = &node.hash {
            self.enter(hash, true, by_wildcard || std::ptr::eq(node, self.root));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Destination;

    fn matches(pattern: &str, key: &str) -> bool {
        let mut trie = TopicTrie::default();
        trie.edit(pattern.as_bytes(), |targets| targets.add(Destination::Exchange("x".into())));
        let mut found = false;
        trie.matches(key.as_bytes(), |_, _| found = true);
        found
    }

    fn begins_with_wildcard(pattern: &str, key: &str) -> Option<bool> {
        let mut trie = TopicTrie::default();
        trie.edit(pattern.as_bytes(), |targets| targets.add(Destination::Exchange("x".into())));
        let mut found = None;
        trie.matches(key.as_bytes(), |_, by_wildcard| found = Some(by_wildcard));
        found
    }

    #[test]
    fn a_match_says_whether_its_pattern_begins_with_a_wildcard() {
        for pattern in ["#", "*.a.#", "*.*", "#.a", "*.#"] {
            assert_eq!(begins_with_wildcard(pattern, "$x.a"), Some(true), "{pattern}");
        }
        for pattern in ["$x.#", "$x.*", "$x.a", "$x.a.#"] {
            assert_eq!(begins_with_wildcard(pattern, "$x.a"), Some(false), "{pattern}");
        }
    }

    #[track_caller]
    fn check(pattern: &str, hits: &[&str], misses: &[&str]) {
        for key in hits {
            assert!(matches(pattern, key), "{pattern} should match {key:?}");
        }
        for key in misses {
            assert!(!matches(pattern, key), "{pattern} should not match {key:?}");
        }
    }

    #[test]
    fn star_is_exactly_one_word() {
        check("a.*.c", &["a.b.c", "a..c"], &["a.c", "a.b.b.c"]);
        check("*", &["a", "*"], &["", "a.b"]);
        check("a.*", &["a.", "a.b"], &["a", "a..b"]);
    }

    #[test]
    fn hash_is_zero_or_more_words() {
        check("a.#", &["a", "a.b", "a.b.c", "a..b"], &["b"]);
        check("#.b.#", &["b", "x.b.y", "b.b"], &["x"]);
        check("a.#.c", &["a.c", "a.b.c", "a.b.b.c"], &["a.b"]);
        check("*.#", &["a", "a.b"], &[""]);
        check("#.#", &["", "a"], &[]);
    }

    #[test]
    fn empty_key_has_no_words_but_a_dot_has_two_empty_ones() {
        check("", &[""], &["a", "."]);
        check("#", &["", ".", "a"], &[]);
        check(".", &["."], &["", "a"]);
        check("*.*", &[".", ".a"], &[""]);
    }

    #[test]
    fn wildcards_count_only_as_whole_words() {
        check("*a", &["*a"], &["ba"]);
        check("a#", &["a#"], &["a", "ab"]);
        check("a", &["a"], &["#", "*"]);
    }

    #[test]
    fn many_hashes_stay_cheap() {
        let pattern = vec!["#.a"; 20].join(".");
        let key = vec!["a"; 60].join(".");
        check(&pattern, &[&key], &["b"]);
    }

    #[test]
    fn removing_the_last_target_leaves_nothing_behind() {
        let mut trie = TopicTrie::default();
        trie.edit(b"a.*.#", |targets| targets.add(Destination::Exchange("x".into())));
        trie.edit(b"a.*.#", |targets| targets.remove(&Destination::Exchange("x".into())));
        assert!(trie.root.is_bare());
    }
}
