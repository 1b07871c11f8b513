//! Topic aliases that the client has set: numbers in the place of topics, for as long as the connection lasts.

use std::collections::HashMap;

/// Bytes of topics that one connection may have us keep: 65 535 aliases of 65 535 bytes would be 4 GiB.
const MOST_BYTES: usize = 1 << 20;

/// Topics by alias.
#[derive(Default)]
pub(crate) struct Aliases {
    topics: HashMap<u16, Box<str>, ahash::RandomState>,
    bytes: usize,
}

impl Aliases {
    /// Sets an alias. False when the client has us keep too much.
    pub(crate) fn set(&mut self, alias: u16, topic: &str) -> bool {
        let old = self.topics.get(&alias).map_or(0, |topic| topic.len());
        if self.bytes - old + topic.len() > MOST_BYTES {
            return false;
        }
        self.bytes = self.bytes - old + topic.len();
        self.topics.insert(alias, topic.into());
        true
    }

    /// The topic of an alias.
    pub(crate) fn get(&self, alias: u16) -> Option<&str> {
        self.topics.get(&alias).map(|topic| &**topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_can_be_set_anew_and_memory_is_bounded() {
        let mut aliases = Aliases::default();
        assert!(aliases.set(1, "a") && aliases.set(1, "b"));
        assert_eq!((aliases.get(1), aliases.get(2)), (Some("b"), None));
        let long = "x".repeat(65_535);
        let taken = (1..=100).filter(|alias| aliases.set(*alias, &long)).count();
        assert_eq!(taken, MOST_BYTES / 65_535);
    }
}
