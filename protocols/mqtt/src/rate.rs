//! How fast one client may publish.

/// Messages in the current second, held against a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    most: u32,
    second: u64,
    count: u32,
}

impl Rate {
    /// At most so many messages a second, 0 for any number.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, second: 0, count: 0 }
    }

    /// One more message.
    #[inline]
    pub(crate) fn count(&mut self, now: u64) {
        if self.most == 0 {
            return;
        }
        if self.second != now / 1000 {
            (self.second, self.count) = (now / 1000, 0);
        }
        self.count = self.count.saturating_add(1);
    }

    /// The client must wait for the next second.
    pub(crate) fn is_exceeded(&self, now: u64) -> bool {
        self.most != 0 && self.second == now / 1000 && self.count >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many() {
        let mut rate = Rate::new(2);
        rate.count(10_000);
        assert!(!rate.is_exceeded(10_000));
        rate.count(10_999);
        assert!(rate.is_exceeded(10_999) && !rate.is_exceeded(11_000));
        rate.count(11_000);
        assert!(!rate.is_exceeded(11_000));
        assert!(!Rate::new(0).is_exceeded(0));
    }
}
