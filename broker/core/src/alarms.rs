//! Whether publishers may go on: the node's shortages in one word that every connection reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which shortages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Memory is above its high-water mark.
    pub memory: bool,
    /// The disk has less than its floor left, or the journal found it full.
    pub disk: bool,
}

impl Shortage {
    /// There is one: publishers wait.
    pub fn any(self) -> bool {
        self.memory || self.disk
    }

    /// The words that clients are told, after RabbitMQ 3.10's `connection.blocked`; `None` without a shortage.
    pub fn reason(self) -> Option<&'static str> {
        match (self.memory, self.disk) {
            (true, true) => Some("low on memory & disk"),
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (false, false) => None,
        }
    }
}

const MEMORY: u64 = 1;
const DISK: u64 = 2;
const GENERATION: u64 = 4;

/// The shortages in force, and a number that grows with each change of them.
#[derive(Debug, Default)]
pub struct Alarms {
    // Both in one word, so that a reader never pairs a generation with another one's shortages.
    word: AtomicU64,
}

impl Alarms {
    /// The shortages in force.
    pub fn shortage(&self) -> Shortage {
        Self::read(self.word.load(Ordering::Acquire))
    }

    /// Grows with each change.
    pub fn generation(&self) -> u64 {
        self.word.load(Ordering::Acquire) / GENERATION
    }

    /// Puts `shortage` in force; true when that is a change. For one caller at a time.
    pub fn set(&self, shortage: Shortage) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if Self::read(word) == shortage {
            return false;
        }
        let bits = u64::from(shortage.memory) * MEMORY + u64::from(shortage.disk) * DISK;
        self.word.store((word / GENERATION + 1) * GENERATION + bits, Ordering::Release);
        true
    }

    fn read(word: u64) -> Shortage {
        Shortage { memory: word & MEMORY != 0, disk: word & DISK != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_count() {
        let alarms = Alarms::default();
        let memory = Shortage { memory: true, disk: false };
        assert!(!alarms.set(Shortage::default()));
        assert!(alarms.set(memory));
        assert!(!alarms.set(memory));
        assert_eq!((alarms.shortage(), alarms.generation()), (memory, 1));
        assert!(alarms.set(Shortage { memory: true, disk: true }));
        assert_eq!(alarms.shortage().reason(), Some("low on memory & disk"));
        assert!(alarms.set(Shortage::default()));
        assert_eq!((alarms.shortage().any(), alarms.generation()), (false, 3));
    }
}
