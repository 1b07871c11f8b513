//! Queues, exchanges and bindings come and go, some by themselves.

use portolan_core::catalogue::ConnectionId;
use portolan_core::delivery::Outcome;
use portolan_core::exchange::ExchangeKind;
use portolan_core::refusal::Refusal;
use portolan_core::store::Owner;

use crate::client::Client;
use crate::kit::{CONNECTION, Claim, Kit, int};

const OTHER: ConnectionId = ConnectionId(2);

fn end(kit: &Kit, connection: ConnectionId, exclusive: &[&str]) {
    let names: Vec<_> = exclusive.iter().map(|name| (*name).into()).collect();
    kit.as_caller(connection, |caller, effects| {
        kit.broker.end_connection(&kit.vhost, caller.connection, &names, caller.now, effects);
    });
}

#[test]
fn a_repeated_declaration_must_be_the_same() {
    let kit = Kit::new();
    kit.queue("q", &[("x-max-length", int(5))]);
    kit.fill("q", &["a"]);
    let again = kit.declare_as(OTHER, "q", |_| {}, &[("x-max-length", int(5))]).unwrap();
    assert_eq!((again.ready, again.created), (1, false));
    let other = kit.declare_as(OTHER, "q", |_| {}, &[("x-max-length", int(6))]);
    assert!(matches!(other, Err(Refusal::Inequivalent { .. })));
    let transient = kit.declare_as(OTHER, "q", |wish| wish.durable = false, &[("x-max-length", int(5))]);
    assert!(matches!(transient, Err(Refusal::Inequivalent { .. })));
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_not_before_the_first() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.declare_as(CONNECTION, "q", |wish| wish.auto_delete = true, &[]).unwrap();
    kit.bind("amq.direct", "q", "k");
    assert!(kit.exists("q"));
    let consumers = [0, 1].map(|number| kit.consume("q", &client, Claim { number, ..Claim::default() }));
    kit.cancel(consumers[0]);
    assert!(kit.exists("q"));
    kit.cancel(consumers[1]);
    assert!(!kit.exists("q"));
    assert_eq!(kit.vhost.snapshot().all_bindings().count(), 0);
}

#[test]
fn a_deleted_queue_tells_its_consumers_and_forgets_what_they_hold() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.consume("q", &client, Claim { number: 7, credit: Some(1), ..Claim::default() });
    kit.store("q", &["held", "ready"]);
    let held = client.take_all()[0].settle;
    assert_eq!(kit.delete("q"), 1);
    assert_eq!(client.cancelled(), [7]);
    assert_eq!(kit.journal.records(), 0);
    kit.queue("q", &[]);
    kit.store("q", &["new"]);
    kit.settle(held, Outcome::Released);
    assert_eq!(kit.drain("q"), ["new"], "the old delivery belongs to no queue");
    assert_eq!(kit.delete("never there"), 0);
}

#[test]
fn purging_takes_what_is_ready_and_leaves_what_is_held() {
    let (kit, client) = (Kit::new(), Client::new());
    let id = kit.queue("q", &[]);
    let consumer = kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
    kit.store("q", &["held", "b", "c"]);
    assert_eq!(kit.purge("q"), 2);
    assert_eq!(kit.journal.bodies(id), ["held"]);
    kit.cancel(consumer);
    kit.settle(client.take_all()[0].settle, Outcome::Released);
    kit.load();
    assert_eq!(kit.drain("q"), ["held*"]);
    assert_eq!(kit.broker.memory(), 0);
}

#[test]
fn an_exclusive_queue_is_its_connections_alone_and_ends_with_it() {
    let kit = Kit::new();
    kit.declare_as(CONNECTION, "mine", |wish| wish.exclusive = true, &[]).unwrap();
    assert!(matches!(kit.declare_as(OTHER, "mine", |wish| wish.exclusive = true, &[]), Err(Refusal::Locked(_))));
    let found = kit.as_caller(OTHER, |caller, _| kit.broker.find_queue(&kit.vhost, "mine", caller).map(drop));
    assert!(matches!(found, Err(Refusal::Locked(_))));
    kit.store("mine", &["anyone may publish"]);
    assert_eq!(kit.journal.records(), 0, "nothing of it is stored");
    end(&kit, CONNECTION, &["mine"]);
    assert!(!kit.exists("mine"));
}

#[test]
fn an_ended_connection_takes_only_its_own_queues() {
    let (kit, client) = (Kit::new(), Client::new());
    let mine = |wish: &mut portolan_core::queues::QueueWish<'_>| {
        wish.exclusive = true;
        wish.auto_delete = true;
    };
    kit.declare_as(CONNECTION, "name", mine, &[]).unwrap();
    kit.cancel(kit.consume("name", &client, Claim::default()));
    assert!(!kit.exists("name"), "it went by itself");
    kit.declare_as(OTHER, "name", mine, &[]).unwrap();
    end(&kit, CONNECTION, &["name"]);
    assert!(kit.exists("name"), "this one is another connection's");
    end(&kit, OTHER, &["name"]);
    assert!(!kit.exists("name"));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding_whatever_ends_that() {
    let kit = Kit::new();
    let auto = |name: &str| kit.exchange_with(name, ExchangeKind::Direct, true, &[]);
    kit.queue("q", &[]);
    auto("never bound");
    auto("unbound");
    kit.bind("unbound", "q", "k");
    kit.bind("unbound", "q", "l");
    kit.unbind("unbound", "q", "k");
    assert!(kit.exchange_exists("unbound"));
    kit.unbind("unbound", "q", "l");
    assert!(!kit.exchange_exists("unbound"));
    auto("second");
    auto("first");
    kit.bind_exchange("first", "second", "k");
    kit.bind("second", "q", "k");
    kit.delete("q");
    assert!(!kit.exchange_exists("second") && !kit.exchange_exists("first"), "one leads to the other");
    assert!(kit.exchange_exists("never bound"));
}

#[test]
fn every_durable_fact_is_written_again_and_no_other() {
    let kit = Kit::new();
    kit.queue("durable", &[("x-max-length", int(5))]);
    kit.declare_as(CONNECTION, "brief", |wish| wish.durable = false, &[]).unwrap();
    kit.declare_as(CONNECTION, "mine", |wish| wish.exclusive = true, &[]).unwrap();
    kit.exchange("x", ExchangeKind::Topic);
    for queue in ["durable", "brief", "mine"] {
        kit.bind("x", queue, "a.#");
    }
    kit.bind_exchange("amq.fanout", "x", "");
    kit.queue("gone", &[]);
    kit.bind("x", "gone", "k");
    kit.delete("gone");
    let facts = kit.journal.facts();
    kit.journal.forget_facts();
    kit.broker.restate().unwrap();
    assert_eq!(kit.journal.facts(), facts);
    assert_eq!(facts.len(), 5, "vhost, queue, exchange and two bindings");
}
