//! What a stop leaves behind comes back, and nothing else.

use portolan_core::delivery::Outcome;
use portolan_core::exchange::ExchangeKind;

use crate::client::Client;
use crate::kit::{CONNECTION, Claim, Kit, Post, int, kept, text};

fn furnished() -> Kit {
    let kit = Kit::new();
    kit.exchange("x", ExchangeKind::Topic);
    kit.exchange_with("auto", ExchangeKind::Direct, true, &[("alternate-exchange", text("x"))]);
    kit.queue("q", &[("x-max-length", int(5))]);
    kit.queue("quorum", &[("x-queue-type", text("quorum"))]);
    kit.declare_as(CONNECTION, "brief", |wish| wish.durable = false, &[]).unwrap();
    kit.declare_as(CONNECTION, "mine", |wish| wish.exclusive = true, &[]).unwrap();
    kit.bind("x", "q", "a.*");
    kit.bind("auto", "q", "k");
    kit.bind("x", "brief", "#");
    kit.bind_exchange("amq.fanout", "x", "");
    kit
}

#[test]
fn the_catalogue_comes_back() {
    let (kit, restored) = furnished().restart(false);
    assert_eq!((restored.queues, restored.strange), (2, 0));
    assert!(!kit.exists("brief") && !kit.exists("mine"));
    assert_eq!(kit.routed("amq.fanout", &["a.b"], &[]), ["q"]);
    assert_eq!(kit.routed("auto", &["a.c"], &[]), ["q"], "by the alternate");
    kit.unbind("auto", "q", "k");
    assert!(!kit.exchange_exists("auto"));
    kit.declare_as(CONNECTION, "q", |_| {}, &[("x-max-length", int(5))]).unwrap();
    let new = kit.queue("new", &[]);
    assert!(new > kit.id("quorum"), "ids are never used again");
}

#[test]
fn an_id_stays_used_though_its_queue_is_gone() {
    let kit = Kit::new();
    kit.broker.reserve_queue_ids().unwrap();
    let old = kit.queue("q", &[]);
    kit.delete("q");
    let (kit, _) = kit.restart(false);
    kit.broker.reserve_queue_ids().unwrap();
    assert!(kit.queue("q", &[]) > old, "records of the old one may still be in the journal");
}

#[test]
fn what_was_deleted_stays_deleted() {
    let kit = furnished();
    kit.store("q", &["a"]);
    kit.delete("q");
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.queues, restored.messages), (1, 0));
    assert!(!kit.exchange_exists("auto"), "its last binding went with the queue");
}

#[test]
fn after_a_crash_everything_counts_as_redelivered() {
    let (kit, client) = (furnished(), Client::new());
    kit.store("q", &["a", "b", "c"]);
    kit.fill("q", &["transient"]);
    kit.consume("q", &client, Claim { credit: Some(2), ..Claim::default() });
    kit.settle(client.take_all()[0].settle, Outcome::Accepted);
    let (kit, restored) = kit.restart(false);
    assert_eq!(restored.messages, 2);
    assert_eq!(kit.drain("q"), ["b*", "c*"]);
}

#[test]
fn after_a_clean_stop_only_what_was_delivered_is_marked() {
    let (kit, client) = (furnished(), Client::new());
    kit.store("q", &["returned", "held", "fresh"]);
    kit.consume("q", &client, Claim { credit: Some(2), ..Claim::default() });
    let got = client.take_all();
    kit.cancel(got[0].from);
    kit.settle(got[0].settle, Outcome::Released);
    let (kit, _) = kit.restart(true);
    assert_eq!(kit.drain("q"), ["returned*", "held*", "fresh"]);
}

#[test]
fn sequence_numbers_go_on_where_they_were() {
    let kit = furnished();
    let id = kit.queue("seq", &[]);
    kit.store("seq", &["a", "b"]);
    assert_eq!(kit.drain("seq"), ["a", "b"]);
    let (kit, _) = kit.restart(true);
    kit.store("seq", &["c", "d"]);
    let recovered = kit.journal.recovered(true);
    let seqs: Vec<u64> = recovered.queues[&id].entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [3, 4]);
}

#[test]
fn old_and_new_messages_stand_in_order_and_keep_their_times() {
    let kit = furnished();
    kit.queue("dead", &[]);
    kit.queue("ttl", &[("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]);
    kit.store("ttl", &["a"]);
    kit.publish("ttl", Post { ttl: Some(50), ..kept("b") });
    let (kit, _) = kit.restart(true);
    kit.store("ttl", &["c"]);
    kit.pass(60);
    kit.load();
    assert_eq!(kit.drain("ttl"), ["a", "c"]);
    assert_eq!(kit.drain("dead"), ["b"]);
}

#[test]
fn restored_messages_can_be_moved_and_consumed() {
    let (kit, client) = (furnished(), Client::new());
    kit.queue("big", &[]);
    let posts: Vec<_> = (0..1300).map(|n| kept(&format!("{n:04}"))).collect();
    kit.publish_to("", "big", &posts);
    let (kit, _) = kit.restart(true);
    assert_eq!(kit.move_all(), [""; 0]);
    kit.consume("big", &client, Claim { settled: true, ..Claim::default() });
    kit.load();
    assert_eq!(client.take(), posts.into_iter().map(|post| post.body).collect::<Vec<_>>());
    assert_eq!(kit.journal.records(), 0);
}

/// Takes a message and gives it back; what the consumer was told of earlier returns.
fn give_back(kit: &Kit, queue: &str) -> Option<Option<u32>> {
    let got = kit.get(queue, false)?;
    kit.settle(got.settle, Outcome::Released);
    kit.load();
    Some(got.returns)
}

#[test]
fn a_delivery_limit_goes_on_counting() {
    let mut kit = furnished();
    kit.queue("limited", &[("x-queue-type", text("quorum")), ("x-delivery-limit", int(4))]);
    kit.store("limited", &["poison"]);
    for (times, moved) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
        assert_eq!(give_back(&kit, "limited"), Some(Some(times)));
        if moved {
            assert_eq!(kit.move_all(), [""; 0]);
        }
        kit = kit.restart(times % 2 == 0).0;
        if moved {
            assert_eq!(kit.move_all(), [""; 0], "before anything of it is in memory");
            kit = kit.restart(true).0;
        }
    }
    assert_eq!((give_back(&kit, "limited"), kit.journal.records()), (None, 0));
}

#[test]
fn only_a_limit_makes_returns_worth_a_record() {
    let (kit, client) = (furnished(), Client::new());
    let posts: Vec<_> = (0..1300).map(|n| kept(&n.to_string())).collect();
    for queue in ["q", "quorum"] {
        kit.publish_to("", queue, &posts);
    }
    let plain = kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
    kit.cancel(plain);
    kit.settle_all(client.take_all().into_iter().map(|delivery| delivery.settle), Outcome::Released);
    assert_eq!(kit.journal.returns(), 0);
    let counted = kit.consume("quorum", &client, Claim { credit: Some(700), ..Claim::default() });
    kit.cancel(counted);
    kit.settle_all(client.take_all().into_iter().map(|delivery| delivery.settle), Outcome::Released);
    assert_eq!(kit.journal.returns(), 1, "one for all that came back together");
    let (kit, _) = kit.restart(true);
    let returns: Vec<_> = std::iter::from_fn(|| kit.get("quorum", true)).map(|got| got.returns.unwrap()).collect();
    assert_eq!(returns, [vec![1; 700], vec![0; 600]].concat());
}
