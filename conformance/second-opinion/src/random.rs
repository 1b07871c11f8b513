//! Random valid parts of packets, the same in each run.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Where the parts come from.
pub struct Random(StdRng);

/// Letters of one to four bytes, what topics are made of, and a control character.
const LETTERS: [char; 14] = ['a', 'b', 'Z', '0', '/', '$', ' ', '.', '*', '\u{1}', 'ü', '€', '\u{feff}', '𝄞'];

impl Random {
    /// A fresh series.
    pub fn new() -> Self {
        Self(StdRng::seed_from_u64(5))
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.0.random()
    }

    /// A packet identifier, or anything else that must not be 0.
    pub fn two(&mut self) -> u16 {
        self.0.random_range(1..=u16::MAX)
    }

    /// Any number, small ones as often as large ones.
    pub fn four(&mut self) -> u32 {
        self.0.random::<u32>() >> self.0.random_range(0..32)
    }

    /// A number up to, but not, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.0).copied().unwrap_or_else(|| unreachable!("no list is empty"))
    }

    /// The value, or nothing.
    pub fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(value(self)) } else { None }
    }

    /// Mostly a few letters; now and then so many that lengths take two or three bytes.
    pub fn text(&mut self) -> String {
        let length = match self.below(60) {
            0 => 6_000,
            1..6 => 150,
            _ => self.below(12),
        };
        (0..length).map(|_| self.one(&LETTERS)).collect()
    }

    /// Any bytes, in lengths as those of texts.
    pub fn bytes(&mut self) -> Vec<u8> {
        let length = self.text().len();
        (0..length).map(|_| self.0.random()).collect()
    }

    /// User properties, names repeated.
    pub fn pairs(&mut self) -> Vec<(String, String)> {
        (0..self.below(4)).map(|_| (self.one(&["", "k", "ключ"]).to_owned(), self.text())).collect()
    }
}
