//! kill -9 under load, again and again: no confirmed message may be lost.

fn main() {}
