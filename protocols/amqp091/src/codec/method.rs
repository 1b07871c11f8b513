//! The methods that a client may send.

mod hot;

pub use hot::{Acknowledgement, Get, PublishArgs, ack, get, nack, publish, reject};
