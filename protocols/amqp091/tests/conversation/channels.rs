//! Errors close what they should and nothing else.

use portolan_core::engine::Ask;

use crate::bytes::*;
use crate::rig::Rig;

#[track_caller]
fn closes_its_channel(request: &[u8], code: u16) {
    let mut peer = Rig::new().peer(1);
    peer.say(&[open(2), declare(1, "q"), consume(2, "q", "c", 0)].concat());
    let heard = peer.say(request);
    assert!(heard.last().unwrap().starts_with(&format!("1 close {code} ")), "{heard:?}");
    assert_eq!(peer.say(&to("q", "dropped").on(1)), [""; 0], "until it answers");
    assert_eq!(peer.say(&[close_ok(1), open(1)].concat()), ["1 open-ok"]);
    assert_eq!(peer.say(&to("q", "x").on(1)), ["2 deliver c 1 x"], "the other one goes on");
}

#[track_caller]
fn closes_the_connection(request: &[u8], code: u16) {
    let mut peer = Rig::new().peer(1);
    let heard = peer.say(request);
    assert!(heard.last().unwrap().starts_with(&format!("0 close {code} ")), "{heard:?}");
    assert!(matches!(peer.ask, Ask::Linger));
    assert_eq!(peer.say(&open(3)), [""; 0]);
    peer.send(&close_connection_ok());
    assert!(peer.closes());
}

#[test]
fn requests_that_cannot_be_met_close_their_channel() {
    closes_its_channel(&passive(1, "nope"), 404);
    closes_its_channel(&consume(1, "nope", "", 0), 404);
    closes_its_channel(&Post { exchange: "nope", ..to("k", "x") }.on(1), 404);
    closes_its_channel(&declare(1, "amq.mine"), 403);
    closes_its_channel(&declare(1, "secret"), 403);
    closes_its_channel(&declare_with(1, "q", DURABLE, &table(&[("x-max-length", 1)])), 406);
    closes_its_channel(&declare_with(1, "new", 0, &table(&[("x-expires", 0)])), 406);
    closes_its_channel(&ack(1, 99, false), 406);
    closes_its_channel(&ack(1, 99, true), 406);
    closes_its_channel(&bind(1, "q", "nope", ""), 404);
    let expired = Post { properties: Some([vec![1, 0], short("soon")].concat()), ..to("q", "x") };
    closes_its_channel(&expired.on(1), 406);
}

#[test]
fn breaches_of_the_protocol_close_the_connection() {
    closes_the_connection(&open(1), 504);
    closes_the_connection(&declare(7, "q"), 504);
    closes_the_connection(&(2..12).flat_map(open).collect::<Vec<_>>(), 530);
    closes_the_connection(&frame(9, 1, b""), 501);
    closes_the_connection(&[1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], 501);
    closes_the_connection(&frame(2, 1, &[0; 14]), 505);
    closes_the_connection(&frame(3, 0, b"x"), 505);
    closes_the_connection(&[to("q", "x").frames(1)[0].clone(), get(1, "q", true)].concat(), 505);
    closes_the_connection(&method(1, 60, 20, &[b"\0"]), 501);
    closes_the_connection(&method(1, 60, 9999, &[]), 501);
    closes_the_connection(&declare(1, "q")[3..], 501);
}

#[test]
fn two_consumers_of_one_tag_are_too_many() {
    let mut peer = Rig::new().peer(1);
    let heard = peer.say(&[declare(1, "q"), consume(1, "q", "c", 0), consume(1, "q", "c", 0)].concat());
    assert!(heard.last().unwrap().starts_with("0 close 530 60 20 "), "{heard:?}");
}

#[test]
fn a_body_longer_than_announced_is_refused() {
    let frames = to("q", "abc").frames(1);
    closes_the_connection(&[&frames[0][..], &frames[1], &frame(3, 1, b"abcd")].concat(), 501);
}

#[test]
fn what_a_closed_channel_held_is_delivered_elsewhere() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[open(2), declare(1, "q"), consume(1, "q", "c", 0), to("q", "a").on(1)].concat());
    peer.say(&passive(1, "nope"));
    assert_eq!(peer.say(&get(2, "q", true)), ["2 get-ok 1* 0 a"]);
}
