//! Where this connection's publishes went before: the same exchange and key need no second look as long as the
//! catalogue stays as it is.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_core::catalogue::Route;

/// Routes kept; beyond that the client uses so many keys that keeping them helps nobody.
const MOST: usize = 4096;

/// Routes by exchange and key in their wire form.
#[derive(Default)]
pub(crate) struct Routes {
    last_names: Vec<u8>,
    last: Option<Arc<Route>>,
    known: HashMap<Box<[u8]>, Arc<Route>, ahash::RandomState>,
}

impl Routes {
    /// A route that still holds.
    #[inline]
    pub(crate) fn find(&mut self, names: &[u8], generation: u64) -> Option<Arc<Route>> {
        if let Some(last) = &self.last
            && last.generation == generation
            && self.last_names == names
        {
            return Some(Arc::clone(last));
        }
        let route = self.known.get(names).filter(|route| route.generation == generation)?;
        let route = Arc::clone(route);
        self.remember(names, &route);
        Some(route)
    }

    /// Keeps a route that its key alone decided.
    pub(crate) fn keep(&mut self, names: &[u8], route: &Arc<Route>) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(names.into(), Arc::clone(route));
        self.remember(names, route);
    }

    fn remember(&mut self, names: &[u8], route: &Arc<Route>) {
        self.last_names.clear();
        self.last_names.extend_from_slice(names);
        self.last = Some(Arc::clone(route));
    }
}
