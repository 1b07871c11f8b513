//! The topic trie against a naive matcher, with patterns coming and going in between.

use std::collections::{BTreeMap, BTreeSet};

use portolan_core::exchange::Destination;
use portolan_core::topic::TopicTrie;
use proptest::prelude::*;

/// The definition, word by word.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => {
            matches(rest, key) || key.split_first().is_some_and(|(_, key)| matches(pattern, key))
        }
        (Some((&"*", rest)), Some((_, key))) => matches(rest, key),
        (Some((word, rest)), Some((other, key))) => word == other && matches(rest, key),
        _ => false,
    }
}

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

fn pattern() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "*", "#", "", "ab"]), 0..6)
        .prop_map(|words| words.join("."))
}

fn key() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "", "ab", "*", "#"]), 0..7)
        .prop_map(|words| words.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_trie_matches_as_the_definition_does(
        steps in prop::collection::vec((pattern(), 0u8..4, any::<bool>()), 1..40),
        keys in prop::collection::vec(key(), 1..10),
    ) {
        let mut trie = TopicTrie::default();
        let mut bound: BTreeMap<(String, u8), u32> = BTreeMap::new();
        for (pattern, target, add) in steps {
            let destination = Destination::Exchange(target.to_string().into());
            let count = bound.entry((pattern.clone(), target)).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
            trie.edit(pattern.as_bytes(), |targets| match add {
                true => targets.add(destination.clone()),
                false => targets.remove(&destination),
            });
            for key in &keys {
                let mut found = BTreeSet::new();
                trie.matches(key.as_bytes(), |targets, _| targets.each(|one| {
                    found.insert(one.clone());
                }));
                let fits = |pattern: &str| matches(&words(pattern), &words(key));
                let expected: BTreeSet<_> = bound
                    .iter()
                    .filter(|((pattern, _), count)| **count > 0 && fits(pattern))
                    .map(|((_, target), _)| Destination::Exchange(target.to_string().into()))
                    .collect();
                prop_assert_eq!(found, expected, "{}", key);
            }
        }
    }
}
