//! From an exchange and keys to queues, through everything that can lie between.

use portolan_core::exchange::ExchangeKind;
use portolan_core::refusal::Refusal;
use portolan_core::value::Value;

use crate::kit::{Kit, int, text};

fn kit(queues: &[&str]) -> Kit {
    let kit = Kit::new();
    for name in queues {
        kit.queue(name, &[]);
    }
    kit
}

#[track_caller]
fn check(kit: &Kit, exchange: &str, key: &str, expected: &[&str]) {
    assert_eq!(kit.routed(exchange, &[key], &[]), expected, "{exchange} {key}");
}

#[test]
fn the_default_exchange_knows_every_queue_by_name() {
    let kit = kit(&["a", "b"]);
    check(&kit, "", "a", &["a"]);
    check(&kit, "", "c", &[]);
    kit.delete("a");
    check(&kit, "", "a", &[]);
}

#[test]
fn each_type_routes_in_its_way_and_unbinding_ends_it() {
    let kit = kit(&["a", "b"]);
    for (exchange, key) in [("amq.direct", "k"), ("amq.fanout", "k"), ("amq.topic", "*.k")] {
        kit.bind(exchange, "a", key);
        kit.bind(exchange, "b", key);
    }
    check(&kit, "amq.direct", "k", &["a", "b"]);
    check(&kit, "amq.direct", "*", &[]);
    check(&kit, "amq.fanout", "anything", &["a", "b"]);
    check(&kit, "amq.topic", "x.k", &["a", "b"]);
    for (exchange, key) in [("amq.direct", "k"), ("amq.fanout", "k"), ("amq.topic", "*.k")] {
        kit.unbind(exchange, "a", key);
    }
    for exchange in ["amq.direct", "amq.fanout"] {
        check(&kit, exchange, "k", &["b"]);
    }
    check(&kit, "amq.topic", "x.k", &["b"]);
}

#[test]
fn a_queue_bound_twice_gets_one_copy_until_the_last_binding_goes() {
    let kit = kit(&["q"]);
    for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
        kit.bind(exchange, "q", "one");
        kit.bind_with(exchange, "q", "one", &[("n", int(1))]);
        kit.bind(exchange, "q", "#");
        check(&kit, exchange, "one", &["q"]);
        kit.unbind(exchange, "q", "#");
        kit.unbind(exchange, "q", "one");
        kit.unbind(exchange, "q", "one");
        check(&kit, exchange, "one", &["q"]);
        kit.unbind_with(exchange, "q", "one", &[("n", int(1))]);
        check(&kit, exchange, "one", &[]);
    }
}

#[test]
fn headers_decide_where_they_are_asked_for() {
    let kit = kit(&["all", "any", "some"]);
    let wanted = [("format", text("pdf")), ("pages", int(3))];
    kit.bind_with("amq.headers", "all", "", &wanted);
    kit.bind_with("amq.headers", "any", "", &[&wanted[..], &[("x-match", text("any"))]].concat());
    kit.bind_with("amq.headers", "some", "", &[("format", Value::Void)]);
    let routed = |headers: &[(&str, Value)]| kit.routed("amq.headers", &[""], headers);
    assert_eq!(routed(&wanted), ["all", "any", "some"]);
    assert_eq!(routed(&[("pages", Value::U8(3))]), ["any"]);
    assert_eq!(routed(&[("format", text("txt"))]), ["some"]);
    assert_eq!(routed(&[]), [""; 0]);
    kit.unbind_with("amq.headers", "any", "", &[&wanted[..], &[("x-match", text("any"))]].concat());
    assert_eq!(routed(&wanted), ["all", "some"]);
}

#[test]
fn a_route_is_kept_only_where_the_key_alone_decides() {
    let kit = kit(&["q"]);
    kit.bind_exchange("amq.direct", "amq.headers", "k");
    let by_key = |exchange: &str| kit.vhost.route(exchange, &[b"k"], &Default::default).unwrap().by_key_alone;
    assert!(by_key("") && by_key("amq.topic") && by_key("amq.fanout"));
    assert!(!by_key("amq.headers") && !by_key("amq.direct"));
    let before = kit.vhost.generation();
    kit.bind("amq.direct", "q", "k");
    assert!(kit.vhost.generation() > before);
}

#[test]
fn every_key_counts_and_no_queue_gets_two_copies() {
    let kit = kit(&["a", "b", "c"]);
    assert_eq!(kit.routed("", &["a", "c", "a"], &[]), ["a", "c"]);
    kit.bind("amq.topic", "a", "x.*");
    kit.bind("amq.topic", "b", "#");
    assert_eq!(kit.routed("amq.topic", &["y", "x.1", "x.2"], &[]), ["a", "b"]);
}

#[test]
fn bindings_between_exchanges_are_followed_and_circles_end() {
    let kit = kit(&["a", "b", "c"]);
    for name in ["x", "y", "z"] {
        kit.exchange(name, ExchangeKind::Topic);
    }
    kit.bind_exchange("x", "y", "k.#");
    kit.bind_exchange("y", "z", "#");
    kit.bind_exchange("z", "x", "#");
    kit.bind_exchange("z", "z", "#");
    for (exchange, queue) in [("x", "a"), ("y", "b"), ("z", "c")] {
        kit.bind(exchange, queue, "k");
    }
    for exchange in ["x", "y", "z"] {
        check(&kit, exchange, "k", &["a", "b", "c"]);
    }
    kit.unbind_exchange("x", "y", "k.#");
    check(&kit, "x", "k", &["a"]);
    check(&kit, "y", "k", &["a", "b", "c"]);
}

#[test]
fn the_alternate_takes_what_matches_nothing() {
    let kit = kit(&["main", "rest", "named"]);
    kit.exchange("last", ExchangeKind::Fanout);
    kit.bind("last", "rest", "");
    kit.exchange_with("middle", ExchangeKind::Direct, false, &[("alternate-exchange", text("last"))]);
    kit.exchange_with("first", ExchangeKind::Direct, false, &[("alternate-exchange", text("middle"))]);
    kit.exchange_with("nowhere", ExchangeKind::Direct, false, &[("alternate-exchange", text("missing"))]);
    kit.exchange_with("self", ExchangeKind::Direct, false, &[("alternate-exchange", text("self"))]);
    kit.exchange_with("default", ExchangeKind::Direct, false, &[("alternate-exchange", text(""))]);
    kit.bind("first", "main", "k");
    check(&kit, "first", "k", &["main"]);
    check(&kit, "first", "other", &["rest"]);
    check(&kit, "nowhere", "k", &[]);
    check(&kit, "self", "k", &[]);
    check(&kit, "default", "named", &["named"]);
    assert_eq!(kit.routed("first", &["k", "other"], &[]), ["main"], "one key that matches is enough");
}

#[test]
fn a_missing_exchange_is_refused() {
    let route = kit(&[]).vhost.route("nope", &[b"k"], &Default::default);
    assert!(matches!(route, Err(Refusal::NotFound(_))));
}
