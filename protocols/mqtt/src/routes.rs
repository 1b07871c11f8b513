//! Where this client's publishes went before: the same topic needs no second look as long as the catalogue stays as
//! it is.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_core::catalogue::Route;

/// Routes kept; beyond that the client uses so many topics that keeping them helps nobody.
const MOST: usize = 4096;

/// Routes by topic. What is kept was allowed.
#[derive(Default)]
pub(crate) struct Routes {
    last_topic: Vec<u8>,
    last: Option<Arc<Route>>,
    known: HashMap<Box<[u8]>, Arc<Route>, ahash::RandomState>,
}

impl Routes {
    /// A route that still holds.
    #[inline]
    pub(crate) fn find(&mut self, topic: &[u8], generation: u64) -> Option<Arc<Route>> {
        if let Some(last) = &self.last
            && last.generation == generation
            && self.last_topic == topic
        {
            return Some(Arc::clone(last));
        }
        let route = self.known.get(topic).filter(|route| route.generation == generation)?;
        let route = Arc::clone(route);
        self.remember(topic, &route);
        Some(route)
    }

    /// Keeps a route.
    pub(crate) fn keep(&mut self, topic: &[u8], route: &Arc<Route>) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(topic.into(), Arc::clone(route));
        self.remember(topic, route);
    }

    fn remember(&mut self, topic: &[u8], route: &Arc<Route>) {
        self.last_topic.clear();
        self.last_topic.extend_from_slice(topic);
        self.last = Some(Arc::clone(route));
    }
}
