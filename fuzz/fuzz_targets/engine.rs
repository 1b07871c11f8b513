//! The whole engine, fed any bytes: from the first one on, and after a handshake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_fuzz::peer::World;

fuzz_target!(|input: &[u8]| {
    let world = World::default();
    let (mut stranger, mut friend) = (world.raw(1), world.peer(2));
    stranger.send(input, world.now);
    friend.send(input, world.now);
    world.end(vec![stranger, friend]);
});
