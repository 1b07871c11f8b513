//! The subscriptions of one session, by pattern: small while there are few, as nearly every device has.

use std::collections::HashMap;

use crate::session::Subscription;

/// Kept in a row up to this many.
const FEW: usize = 8;

/// Subscriptions by pattern.
#[derive(Debug)]
pub(crate) enum Patterns {
    Few(Vec<(Box<[u8]>, Subscription)>),
    #[expect(clippy::box_collection, reason = "few is the rule, and a map takes three times a vector's place")]
    Many(Box<HashMap<Box<[u8]>, Subscription, ahash::RandomState>>),
}

impl Default for Patterns {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Patterns {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There is one with that pattern.
    pub(crate) fn contains_key(&self, pattern: &[u8]) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|(known, _)| **known == *pattern),
            Self::Many(many) => many.contains_key(pattern),
        }
    }

    /// Puts one in, and returns the one that had its pattern before.
    pub(crate) fn insert(&mut self, pattern: Box<[u8]>, one: Subscription) -> Option<Subscription> {
        match self {
            Self::Few(few) => {
                if let Some((_, known)) = few.iter_mut().find(|(known, _)| *known == pattern) {
                    return Some(std::mem::replace(known, one));
                }
                if few.len() < FEW {
                    few.reserve_exact(1);
                    few.push((pattern, one));
                } else {
                    let all = std::mem::take(few).into_iter().chain([(pattern, one)]);
                    *self = Self::Many(Box::new(all.collect()));
                }
                None
            }
            Self::Many(many) => many.insert(pattern, one),
        }
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, pattern: &[u8]) -> Option<Subscription> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(known, _)| **known == *pattern)?;
                Some(few.swap_remove(at).1)
            }
            Self::Many(many) => many.remove(pattern),
        }
    }

    /// All of them, in any order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Subscription)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(pattern, one)| (&**pattern, one));
        few.chain(many.into_iter().flat_map(|many| many.iter()).map(|(pattern, one)| (&**pattern, one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_the_same() {
        let mut patterns = Patterns::default();
        let mut model = HashMap::new();
        let one = |identifier| Subscription { identifier, ..Subscription::default() };
        for n in 0..40_u32 {
            let pattern = [(n % 20) as u8];
            assert_eq!(patterns.insert(pattern.into(), one(n)), model.insert(pattern, one(n)));
            assert_eq!(patterns.len(), model.len());
        }
        assert!(matches!(patterns, Patterns::Many(_)));
        let mut all: Vec<_> = patterns.iter().map(|(pattern, one)| (pattern.to_vec(), *one)).collect();
        all.sort_by_key(|(pattern, _)| pattern.clone());
        assert_eq!(all.len(), 20);
        for n in 0..30_u8 {
            assert_eq!(patterns.contains_key(&[n]), model.contains_key(&[n]));
            assert_eq!(patterns.remove(&[n]), model.remove(&[n]));
        }
        assert!(patterns.is_empty());
    }
}
