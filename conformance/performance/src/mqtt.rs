//! MQTT 3.1.1 and 5.0 as a load generator speaks it: packets, how connections are opened, publishers' and subscribers' states.

pub(crate) mod dialogue;
pub(crate) mod flights;
pub(crate) mod packet;
pub(crate) mod subscriber;
pub(crate) mod topic;
