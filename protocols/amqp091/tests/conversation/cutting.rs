//! However a conversation is cut into pieces, it goes the same way.

use proptest::prelude::*;

use crate::bytes::*;
use crate::rig::Rig;

/// A conversation with a little of everything. A client settles what it has seen, so there is a question with its
/// answer before each settlement.
fn conversation() -> Vec<u8> {
    let seen = || passive(1, "full");
    let big = Post { body: vec![b'B'; 9000], ..to("q", "") };
    let pieces = Post { body: vec![b'p'; 50], piece: 13, ..to("q", "") };
    let full =
        [&short("x-overflow")[..], b"S", &long(b"reject-publish"), &short("x-max-length"), b"I\0\0\0\x01"].concat();
    [
        HEADER.to_vec(),
        start_ok(&["consumer_cancel_notify"]),
        tune_ok(10, 4096, 0),
        open_vhost("/"),
        open(1),
        open(2),
        declare(1, "q"),
        declare_with(1, "full", 0, &long(&full)),
        qos(1, 3, false),
        heartbeat(),
        consume(1, "q", "c", 0),
        to("q", "one").on(2),
        to("q", "").transient().on(1),
        seen(),
        ack(1, 1, false),
        big.on(2),
        pieces.on(1),
        seen(),
        nack(1, 2, true, true),
        get(2, "q", true),
        to("nope", "returned").mandatory().on(2),
        to("full", "in").on(1),
        to("full", "out").on(1),
        passive(2, "nope"),
        close_ok(2),
        open(2),
        tx(2, 10),
        to("q", "tx").on(2),
        tx(2, 20),
        seen(),
        ack(1, 0, true),
        delete(1, "q"),
        to("q", "unroutable").on(1),
        passive(1, "full"),
        close(2),
        close_connection(),
    ]
    .concat()
}

/// The answers to a conversation that comes in pieces.
fn answers(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut peer = Rig::new().raw(1);
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        peer.send(&bytes[from..cut]);
        from = cut;
    }
    assert!(peer.closes());
    // The table of connection.start has no fixed order; its frame is shown by name alone.
    crate::show::lines(&peer.raw_heard(), 131_072)
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let bytes = conversation();
    let expected = answers(&bytes, &[]);
    assert_eq!(expected.len(), 29, "{expected:#?}");
    for cut in 1..bytes.len() {
        assert_eq!(answers(&bytes, &[cut]), expected, "cut at {cut}");
    }
}

#[test]
fn byte_by_byte_it_is_the_same() {
    let bytes = conversation();
    let every: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(answers(&bytes, &every), answers(&bytes, &[]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_cuts_change_nothing(cuts in prop::collection::btree_set(1usize..conversation().len(), 0..40)) {
        let bytes = conversation();
        let cuts: Vec<usize> = cuts.into_iter().collect();
        prop_assert_eq!(answers(&bytes, &cuts), answers(&bytes, &[]));
    }

    /// A message arrives whole wherever its body is cut into frames and its frames into reads.
    #[test]
    fn a_body_may_come_in_any_frames(
        body in prop::collection::vec(any::<u8>(), 0..3000),
        piece in 1usize..4000,
        read in 1usize..5000,
    ) {
        let mut peer = Rig::new().peer(1);
        peer.say(&declare(1, "q"));
        let post = Post { body: body.clone(), piece, ..to("q", "") };
        post.on(1).chunks(read).for_each(|bytes| peer.send(bytes));
        peer.send(&get(1, "q", true));
        let bytes = peer.raw_heard();
        let found = bytes.windows(body.len().max(1)).any(|window| window == body);
        prop_assert!(found || body.is_empty());
    }

    /// Whatever comes after the handshake, the engine answers or closes, and keeps nothing of it that is unbounded.
    #[test]
    fn garbage_costs_only_itself(frames in prop::collection::vec((1u8..4, 0u16..3, prop::collection::vec(any::<u8>(), 0..60)), 0..20)) {
        let rig = Rig::new();
        let mut peer = rig.peer(1);
        for (kind, channel, payload) in frames {
            peer.send(&frame(kind, channel, &payload));
        }
        peer.end();
        let mut other = rig.peer(2);
        prop_assert_eq!(other.say(&declare(1, "q")), ["1 declare-ok q 0 0"]);
    }
}
