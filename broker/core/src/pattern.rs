//! One topic pattern held against many keys, as when a new subscription asks what is retained.

/// A pattern of a topic exchange, cut into its words once.
pub(crate) struct Pattern<'a> {
    text: &'a [u8],
    words: Vec<&'a [u8]>,
    /// Words before the first wildcard.
    fixed: usize,
    /// Their length as text, dots between them included.
    fixed_len: usize,
}

/// The words of a key: none in an empty key, else one more than there are dots.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    key.split(|&byte| byte == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

fn is_wildcard(word: &[u8]) -> bool {
    matches!(word, b"*" | b"#")
}

impl<'a> Pattern<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let words: Vec<&[u8]> = words(text).collect();
        let fixed = words.iter().position(|word| is_wildcard(word)).unwrap_or(words.len());
        let dots = fixed.saturating_sub(1);
        let fixed_len = words.iter().take(fixed).map(|word| word.len()).sum::<usize>() + dots;
        Self { text, words, fixed, fixed_len }
    }

    /// The only key that it matches, if it has no wildcard.
    pub(crate) fn exact(&self) -> Option<&'a [u8]> {
        (self.fixed == self.words.len()).then_some(self.text)
    }

    pub(crate) fn begins_with_wildcard(&self) -> bool {
        self.fixed == 0 && !self.words.is_empty()
    }

    /// The key of the words before the first wildcard, which the pattern itself may match: `a` of `a.#`.
    pub(crate) fn stem(&self) -> &'a [u8] {
        self.text.get(..self.fixed_len).unwrap_or_default()
    }

    /// What every other key that it matches begins with: `a.` of `a.#`, nothing if it begins with a wildcard.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        let dot = usize::from(self.fixed > 0);
        self.text.get(..self.fixed_len + dot).unwrap_or_default()
    }

    /// Whether a key that begins with [`Pattern::prefix`] matches.
    pub(crate) fn matches_under_prefix(&self, key: &[u8]) -> bool {
        let rest = self.words.get(self.fixed..).unwrap_or_default();
        match key.get(self.prefix().len()..) {
            None => false,
            Some(_) if rest == [b"#"] => true,
            Some(key) if self.fixed == 0 => fits(rest, words(key)),
            // Behind the prefix's dot there is a word, if an empty one.
            Some(key) => fits(rest, key.split(|&byte| byte == b'.')),
        }
    }

    /// Whether a key matches.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        fits(&self.words, words(key))
    }
}

/// Word by word; when it gets stuck, the last `#` takes one word more. An earlier one never needs to: whatever it
/// could take, the last one can take as well.
fn fits<'k>(pattern: &[&[u8]], mut key: impl Iterator<Item = &'k [u8]> + Clone) -> bool {
    let mut at = 0;
    let mut retry = None;
    loop {
        if pattern.get(at).is_some_and(|word| *word == b"#") {
            at += 1;
            retry = Some((at, key.clone()));
            continue;
        }
        match (pattern.get(at), key.next()) {
            (None, None) => return true,
            (Some(word), Some(other)) if *word == b"*" || *word == other => at += 1,
            _ => {
                let Some((from, rest)) = &mut retry else { return false };
                if rest.next().is_none() {
                    return false;
                }
                at = *from;
                key = rest.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Destination;
    use crate::topic::TopicTrie;

    const WORDS: [&str; 5] = ["a", "b", "", "*", "#"];

    /// All texts of up to four words.
    fn texts() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest: Vec<Vec<&str>> = vec![vec![]];
        for _ in 0..4 {
            longest = longest.iter().flat_map(|text| WORDS.map(|word| [&**text, &[word]].concat())).collect();
            all.extend(longest.iter().map(|words| words.join(".")));
        }
        all
    }

    #[test]
    fn it_matches_what_the_trie_matches() {
        let texts = texts();
        for pattern in &texts {
            let mut trie = TopicTrie::default();
            trie.edit(pattern.as_bytes(), |targets| targets.add(Destination::Exchange("x".into())));
            let pattern = Pattern::new(pattern.as_bytes());
            for key in texts.iter().map(|key| key.as_bytes()) {
                let mut expected = false;
                trie.matches(key, |_, _| expected = true);
                assert_eq!(pattern.matches(key), expected, "{:?} {key:?}", pattern.text);
                let found = match pattern.exact() {
                    Some(only) => key == only,
                    None if key.starts_with(pattern.prefix()) => pattern.matches_under_prefix(key),
                    None => key == pattern.stem() && pattern.matches(key),
                };
                assert_eq!(found, expected, "{:?} {key:?}", pattern.text);
            }
        }
    }

    #[test]
    fn many_hashes_stay_cheap() {
        let pattern = vec!["#.a"; 20].join(".");
        let key = vec!["a"; 60].join(".");
        assert!(Pattern::new(pattern.as_bytes()).matches(key.as_bytes()));
        assert!(!Pattern::new(pattern.as_bytes()).matches(vec!["b"; 60].join(".").as_bytes()));
    }
}
