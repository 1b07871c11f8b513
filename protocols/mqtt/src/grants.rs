//! What the subscriptions of a session grant a message: looked up when it is delivered.

use std::collections::HashMap;

use portolan_core::session::Subscription;
use smallvec::SmallVec;

use crate::topic;

/// Topics whose grant is remembered, where subscriptions differ.
const REMEMBERED: usize = 1024;

/// What a message gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Highest QoS.
    pub(crate) qos: u8,
    /// RETAIN stays as it was published.
    pub(crate) retain_as_published: bool,
    /// Identifiers of the subscriptions that match \[MQTT-3.3.4-4\].
    pub(crate) identifiers: SmallVec<[u32; 2]>,
}

impl Granted {
    pub(crate) fn alone(one: Subscription) -> Self {
        let mut granted = Self::default();
        granted.add(one);
        granted
    }

    fn add(&mut self, one: Subscription) {
        self.qos = self.qos.max(one.qos);
        self.retain_as_published |= one.retain_as_published;
        if one.identifier != 0 {
            self.identifiers.push(one.identifier);
        }
    }

    /// For a retained message that was made for one subscription.
    pub(crate) fn replay(qos: u8, identifier: u32) -> Self {
        Self::alone(Subscription { qos, identifier, ..Subscription::default() })
    }
}

/// The subscriptions of a session, as far as deliveries must know them.
#[derive(Default)]
pub(crate) struct Grants {
    own: Own,
    /// By number, from 1 on.
    groups: Vec<Subscription>,
}

#[derive(Default)]
enum Own {
    #[default]
    None,
    /// They all grant the same and have no identifier, or there is one only: no need to look at topics.
    Alike(Subscription),
    Various(Box<Various>),
}

struct Various {
    /// Filters as MQTT writes them.
    filters: Vec<(Box<str>, Subscription)>,
    known: HashMap<Box<str>, Granted, ahash::RandomState>,
}

impl Grants {
    /// Looks at the session's subscriptions anew.
    pub(crate) fn refresh(&mut self, subscriptions: &[(Box<[u8]>, Subscription)]) {
        let Some((_, first)) = subscriptions.first() else {
            self.own = Own::None;
            return;
        };
        let same = |one: &Subscription| Self::alike(first, one);
        self.own = if subscriptions.len() == 1 || subscriptions.iter().all(|(_, one)| same(one)) {
            Own::Alike(*first)
        } else {
            let filters = subscriptions.iter().map(|(pattern, one)| (filter_of(pattern), *one)).collect();
            Own::Various(Box::new(Various { filters, known: HashMap::default() }))
        };
    }

    /// One was added to the session, or took the place of an older one. False when all must be looked at anew.
    pub(crate) fn added(&mut self, pattern: &[u8], one: Subscription, new: bool) -> bool {
        match &mut self.own {
            Own::None if new => self.own = Own::Alike(one),
            Own::Alike(known) if Self::alike(known, &one) => {}
            Own::Various(various) if new => {
                various.filters.push((filter_of(pattern), one));
                various.known.clear();
            }
            _ => return false,
        }
        true
    }

    fn alike(one: &Subscription, other: &Subscription) -> bool {
        let same = (one.qos, one.retain_as_published) == (other.qos, other.retain_as_published);
        same && one.identifier == 0 && other.identifier == 0
    }

    /// What a message with that topic gets from the session's own subscriptions.
    pub(crate) fn own(&mut self, topic: &str) -> Granted {
        match &mut self.own {
            // Taken in by a subscription that is no more: delivered as it was published [MQTT-3.10.4-3].
            Own::None => Granted { qos: 2, ..Granted::default() },
            Own::Alike(one) => Granted::alone(*one),
            Own::Various(various) => various.find(topic),
        }
    }

    /// The subscription to the group of that number.
    pub(crate) fn subscription(&self, number: u32) -> Subscription {
        let at = (number as usize).checked_sub(1);
        at.and_then(|at| self.groups.get(at)).copied().unwrap_or_default()
    }

    /// What a message of that group gets.
    pub(crate) fn group(&self, number: u32) -> Granted {
        Granted::alone(self.subscription(number))
    }

    /// Joins a group under that number, or changes what it grants.
    pub(crate) fn join(&mut self, number: u32, one: Subscription) {
        let at = (number as usize).saturating_sub(1);
        if self.groups.len() <= at {
            self.groups.resize(at + 1, Subscription::default());
        }
        if let Some(group) = self.groups.get_mut(at) {
            *group = one;
        }
    }
}

impl Various {
    fn find(&mut self, topic: &str) -> Granted {
        if let Some(known) = self.known.get(topic) {
            return known.clone();
        }
        let mut granted = Granted::default();
        let mut any = false;
        for (_, one) in self.filters.iter().filter(|(filter, _)| topic::matches(filter, topic)) {
            granted.add(*one);
            any = true;
        }
        if !any {
            granted.qos = 2;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(topic.into(), granted.clone());
        granted
    }
}

/// The filter that a pattern of the topic exchange was made of.
pub(crate) fn filter_of(pattern: &[u8]) -> Box<str> {
    let mut filter = Vec::with_capacity(pattern.len());
    // The exchange of letters is its own inverse.
    filter.extend(pattern.iter().map(|byte| match byte {
        b'/' => b'.',
        b'.' => b'/',
        b'+' => b'*',
        b'*' => b'+',
        other => *other,
    }));
    String::from_utf8_lossy(&filter).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn various(filters: &[(&str, Subscription)]) -> Grants {
        let filters = filters.iter().map(|(filter, one)| ((*filter).into(), *one)).collect();
        Grants { own: Own::Various(Box::new(Various { filters, known: HashMap::default() })), groups: Vec::new() }
    }

    #[test]
    fn one_copy_has_the_highest_qos_and_all_identifiers() {
        let one = |qos, identifier| Subscription { qos, identifier, ..Subscription::default() };
        let mut grants = various(&[("a/#", one(1, 7)), ("a/+", one(2, 9)), ("b", one(0, 3))]);
        for _ in 0..2 {
            let granted = grants.own("a/b");
            assert_eq!((granted.qos, &*granted.identifiers), (2, &[7, 9][..]));
        }
        assert_eq!(grants.own("b").qos, 0);
    }

    #[test]
    fn what_no_subscription_wants_any_more_goes_out_as_it_came() {
        assert_eq!(various(&[("x", Subscription::default())]).own("y").qos, 2);
        assert_eq!(Grants::default().own("y").qos, 2);
    }

    #[test]
    fn a_pattern_gives_its_filter_back() {
        for filter in ["a/+/b.c/#", "*/x", "+", "#", "/"] {
            let mut pattern = Vec::new();
            topic::append_key(filter, &mut pattern);
            assert_eq!(&*filter_of(&pattern), filter);
        }
    }
}
