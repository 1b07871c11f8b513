//! The journal as a Raft log.

use portolan_core::store::Index;


pub struct RecordAt {
    /// x
    pub index: Index,
}
