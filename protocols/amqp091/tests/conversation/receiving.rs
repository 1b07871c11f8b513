//! Publishing, consuming, getting, settling.

use portolan_core::engine::{Ask, Engine};

use crate::bytes::*;
use crate::rig::Rig;

#[test]
fn a_message_comes_out_as_it_went_in() {
    let mut peer = Rig::new().peer(1);
    assert_eq!(peer.say(&declare(1, "q")), ["1 declare-ok q 0 0"]);
    peer.say(&to("q", "hello").on(1));
    assert_eq!(peer.say(&consume(1, "q", "me", 0)), ["1 consume-ok me", "1 deliver me 1 hello"]);
    assert_eq!(peer.say(&to("q", "").on(1)), ["1 deliver me 2 "]);
    assert_eq!(peer.say(&ack(1, 2, true)), [""; 0]);
    assert_eq!(peer.say(&passive(1, "q")), ["1 declare-ok q 0 1"]);
}

#[test]
fn another_connection_gets_what_this_one_publishes() {
    let rig = Rig::new();
    let (mut publisher, mut consumer) = (rig.peer(1), rig.peer(2));
    publisher.say(&declare(1, "q"));
    consumer.say(&consume(1, "q", "c", NO_ACK));
    publisher.send(&[to("q", "a").on(1), to("q", "b").on(1)].concat());
    assert_eq!(consumer.heard(), ["1 deliver c 1 a", "1 deliver c 2 b"]);
}

#[test]
fn prefetch_bounds_and_acks_reopen() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[declare(1, "q"), qos(1, 2, false)].concat());
    peer.send(&["a", "b", "c", "d"].map(|body| to("q", body).on(1)).concat());
    assert_eq!(peer.say(&consume(1, "q", "c", 0)), ["1 consume-ok c", "1 deliver c 1 a", "1 deliver c 2 b"]);
    assert_eq!(peer.say(&ack(1, 1, false)), ["1 deliver c 3 c"]);
    assert_eq!(peer.say(&nack(1, 3, true, true)), ["1 deliver c 4* b", "1 deliver c 5* c"]);
    assert_eq!(peer.say(&nack(1, 0, true, false)), ["1 deliver c 6 d"]);
}

#[test]
fn a_window_is_shared_by_a_channels_consumers() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[declare(1, "p"), declare(1, "q"), qos(1, 2, true)].concat());
    peer.say(&[consume(1, "p", "a", 0), consume(1, "q", "b", 0)].concat());
    let posts = [to("p", "1"), to("q", "2"), to("p", "3"), to("q", "4")].map(|post| post.on(1)).concat();
    let heard = peer.say(&posts);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(peer.say(&ack(1, 1, false)).len(), 1);
    assert_eq!(peer.say(&ack(1, 0, true)).len(), 1);
}

#[test]
fn a_channel_that_holds_too_much_goes_on_when_it_holds_less() {
    let mut rig = Rig::new();
    rig.settings.unsettled = 3;
    let mut peer = rig.peer(1);
    peer.say(&[declare(1, "q"), consume(1, "q", "c", 0)].concat());
    let heard = peer.say(&["a", "b", "c", "d", "e", "f"].map(|body| to("q", body).on(1)).concat());
    assert_eq!(heard, ["1 deliver c 1 a", "1 deliver c 2 b", "1 deliver c 3 c"]);
    assert_eq!(peer.say(&ack(1, 1, false)), ["1 deliver c 4 d"]);
    assert_eq!(peer.say(&ack(1, 0, true)), ["1 deliver c 5 e", "1 deliver c 6 f"]);
    assert_eq!(peer.say(&passive(1, "q")), ["1 declare-ok q 0 1"]);
}

#[test]
fn a_channel_that_holds_too_much_fetches_no_more() {
    let mut rig = Rig::new();
    rig.settings.unsettled = 2;
    let mut peer = rig.peer(1);
    peer.say(&[declare(1, "q"), ["a", "b", "c", "d"].map(|body| to("q", body).on(1)).concat()].concat());
    peer.say(&[get(1, "q", false), get(1, "q", false)].concat());
    assert_eq!(peer.say(&get(1, "q", true)), ["1 get-ok 3 1 c"], "nothing to settle");
    peer.say(&ack(1, 1, false));
    assert_eq!(peer.say(&get(1, "q", false)), ["1 get-ok 4 0 d"]);
    let text = "PRECONDITION_FAILED - 2 deliveries of this channel are unsettled, the most allowed is 2";
    assert_eq!(peer.say(&get(1, "q", false)), [format!("1 close 406 60 70 {text}")]);
    let ready = peer.say(&[close_ok(1), open(1), passive(1, "q")].concat());
    assert_eq!(ready, ["1 open-ok", "1 declare-ok q 2 0"], "what it held went back");
}

#[test]
fn get_and_recover() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[declare(1, "q"), to("q", "a").on(1), to("q", "b").on(1)].concat());
    assert_eq!(peer.say(&get(1, "q", false)), ["1 get-ok 1 1 a"]);
    assert_eq!(peer.say(&recover(1)), ["1 recover-ok"]);
    assert_eq!(peer.say(&get(1, "q", true)), ["1 get-ok 2* 1 a"]);
    assert_eq!(peer.say(&get(1, "q", true)), ["1 get-ok 3 0 b"]);
    assert_eq!(peer.say(&get(1, "q", true)), ["1 get-empty"]);
}

#[test]
fn big_bodies_come_in_frames_and_leave_in_frames() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[declare(1, "q"), consume(1, "q", "c", NO_ACK)].concat());
    for size in [4087, 4088, 4089, 16_383, 16_384, 100_000, 1 << 20] {
        let post = Post { body: vec![b'x'; size], ..to("q", "") };
        assert_eq!(peer.say(&post.on(1)).len(), 1, "{size} bytes");
    }
    let post = Post { body: vec![b'x'; (1 << 20) + 1], ..to("q", "") };
    let heard = peer.say(&post.on(1));
    assert!(
        heard[0].starts_with("1 close 406 60 40 PRECONDITION_FAILED - message size 1048577 is larger"),
        "{heard:?}"
    );
}

#[test]
fn bodies_of_two_channels_may_be_interleaved() {
    let mut peer = Rig::new().peer(1);
    peer.say(&[open(2), declare(1, "q"), consume(1, "q", "c", NO_ACK)].concat());
    let post = |letter: &str| Post { body: letter.repeat(30).into_bytes(), piece: 7, ..to("q", "") };
    let (one, two) = (post("a").frames(1), post("b").frames(2));
    let mixed: Vec<u8> = one.into_iter().zip(two).flat_map(|(one, two)| [one, two].concat()).collect();
    let expected = ["a", "b"].map(|letter| letter.repeat(30));
    assert_eq!(peer.say(&mixed), [format!("1 deliver c 1 {}", expected[0]), format!("1 deliver c 2 {}", expected[1])]);
}

#[test]
fn a_deleted_queue_cancels_its_consumers_and_their_tags_are_free() {
    let rig = Rig::new();
    let (mut peer, mut other) = (rig.peer(1), rig.peer(2));
    for round in 0..300 {
        let heard = peer.say(&[declare(1, "q"), consume(1, "q", "c", 0), to("q", "x").on(1)].concat());
        let deliver = format!("1 deliver c {} x", round + 1);
        assert_eq!(heard, ["1 declare-ok q 0 0", "1 consume-ok c", &deliver]);
        assert_eq!(other.say(&delete(1, "q")), ["1 delete-ok 0"]);
        assert_eq!(peer.heard(), ["1 cancel c"]);
    }
    assert_eq!(rig.broker.census().consumers, 0);
}

#[test]
fn a_cancelled_consumer_takes_no_other_one_with_it() {
    let rig = Rig::new();
    let (mut peer, mut other) = (rig.peer(1), rig.peer(2));
    peer.say(&[declare(1, "gone"), declare(1, "q"), consume(1, "gone", "a", 0)].concat());
    other.say(&delete(1, "gone"));
    peer.say(&[cancel(1, "a"), consume(1, "q", "b", 0)].concat());
    peer.reads(None);
    peer.ask = peer.engine.woken(peer.now);
    assert_eq!(peer.say(&to("q", "x").on(1)), ["1 deliver b 1 x"]);
}

#[test]
fn a_client_that_does_not_ask_is_not_told_of_cancelled_consumers() {
    let rig = Rig::new();
    let (mut peer, mut other) = (rig.raw(1), rig.peer(2));
    peer.shake(&[], 0);
    peer.say(&[open(1), declare(1, "q"), consume(1, "q", "c", 0)].concat());
    other.say(&delete(1, "q"));
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn what_an_ended_connection_held_goes_to_the_next_one_marked() {
    let rig = Rig::new();
    let (mut peer, mut other) = (rig.peer(1), rig.peer(2));
    peer.say(&[declare(1, "q"), consume(1, "q", "c", 0), to("q", "a").on(1)].concat());
    peer.say(&declare_with(1, "mine", EXCLUSIVE, &long(b"")));
    peer.say(&[declare_with(1, "auto", AUTO_DELETE, &long(b"")), consume(1, "auto", "d", 0)].concat());
    peer.end();
    assert_eq!(other.say(&consume(1, "q", "c", 0)), ["1 consume-ok c", "1 deliver c 1* a"]);
    let census = rig.broker.census();
    assert_eq!((census.queues, census.consumers), (1, 1));
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_outbox() {
    let mut rig = Rig::new();
    rig.settings.outbox_high = 2000;
    rig.settings.outbox_low = 500;
    let (mut publisher, mut slow) = (rig.peer(1), rig.peer(2));
    publisher.say(&declare(1, "q"));
    slow.say(&consume(1, "q", "c", NO_ACK));
    slow.reads(Some(0));
    for n in 0..200 {
        publisher.send(&to("q", &format!("{n:030}")).transient().on(1));
    }
    assert!(rig.broker.census().ready > 150, "the rest waits in the queue");
    let mut heard = Vec::new();
    for _ in 0..100 {
        slow.reads(None);
        heard.extend(slow.heard());
    }
    let expected: Vec<_> = (0..200).map(|n| format!("1 deliver c {} {n:030}", n + 1)).collect();
    assert_eq!(heard, expected);
    assert!(!slow.engine.congested());
}

#[test]
fn further_keys_lead_to_further_queues_and_blind_ones_leave_no_trace() {
    let mut peer = Rig::new().peer(1);
    peer.say(&["a", "b", "c"].map(|queue| declare(1, queue)).concat());
    let list = |key: &str| [vec![b'A'], long(&[vec![b'S'], long(key.as_bytes())].concat())].concat();
    let headers = long(&[short("CC"), list("b"), short("BCC"), list("c")].concat());
    let post = Post { properties: Some([vec![0x20, 0], headers].concat()), ..to("a", "x") };
    peer.say(&post.on(1));
    for queue in ["a", "b", "c"] {
        peer.send(&get(1, queue, true));
        let bytes = peer.raw_heard();
        let holds = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        assert!(holds(b"\x02CC") && !holds(b"\x03BCC"), "{queue}");
    }
}

#[test]
fn a_delivery_that_is_never_settled_closes_its_channel_in_the_end() {
    let mut rig = Rig::new();
    rig.settings.consumer_timeout = 60_000;
    let mut peer = rig.peer(1);
    peer.say(&[open(2), declare(1, "q"), consume(1, "q", "c", 0), to("q", "x").on(1)].concat());
    assert_eq!(peer.tick(59_999), [""; 0]);
    assert!(peer.tick(1)[0].starts_with("1 close 406 "));
    assert!(matches!(peer.ask, Ask::More));
    assert_eq!(peer.say(&get(2, "q", true)), ["2 get-ok 1* 0 x"]);
}
