//! The topics of a run, and the filters by which its consumers subscribe to them.

use crate::options::{Load, Target};

/// The run's topic number `index`.
pub(crate) fn topic(target: &Target, index: usize) -> String {
    format!("load-{:06x}/{index}/e", target.run)
}

/// A filter that matches topic number `index` alone, but by a wildcard.
fn wild(target: &Target, index: usize) -> String {
    format!("load-{:06x}/{index}/+", target.run)
}

/// A filter that matches all of the run's topics.
pub(crate) fn all(target: &Target) -> String {
    format!("load-{:06x}/#", target.run)
}

/// A filter with a wildcard that matches none of the run's topics, though it shares their beginning.
pub(crate) fn aside(target: &Target, index: usize) -> String {
    match index % 2 {
        0 => format!("load-{:06x}/+/{index}", target.run),
        _ => format!("load-{:06x}/aside-{index}/#", target.run),
    }
}

/// What consumer number `consumer` subscribes to.
pub(crate) fn filters(load: &Load, consumer: usize) -> Vec<String> {
    if load.wildcard {
        return vec![all(&load.target)];
    }
    let groups = load.layout().groups;
    let of = |(place, index): (usize, usize)| match load.mixed && (consumer / groups + place) % 2 == 1 {
        true => wild(&load.target, index),
        false => topic(&load.target, index),
    };
    (consumer % groups..load.queues).step_by(groups).enumerate().map(of).collect()
}

/// The client id of a publisher (`p`), a subscriber (`c`) or another.
pub(crate) fn client(target: &Target, what: char, index: usize) -> String {
    format!("load-{:06x}-{what}{index}", target.run)
}
