//! What several fuzz targets need: a broker in memory with connections that are fed bytes.

pub mod devices;
pub mod feed;
pub mod journal;
pub mod peer;
pub mod script;
