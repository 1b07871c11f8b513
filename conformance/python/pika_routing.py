"""Exchanges of every type, bindings between them, and where messages end."""

from check import check, fresh, same
from pika import exceptions
from pika_helpers import channel, drain, get, publish


def bound(ch, exchange, routing_key="", arguments=None):
    """A new queue bound to the exchange."""
    queue = ch.queue_declare("", exclusive=True).method.queue
    ch.queue_bind(queue, exchange, routing_key, arguments)
    return queue


@check
def direct_exchange():
    with channel(confirm=True) as ch:
        exchange = fresh("x")
        ch.exchange_declare(exchange, "direct", auto_delete=True)
        red, blue, both = bound(ch, exchange, "red"), bound(ch, exchange, "blue"), bound(ch, exchange, "red")
        ch.queue_bind(both, exchange, "blue")
        for key in ("red", "blue", "green"):
            publish(ch, key, key.encode(), exchange)
        same((drain(ch, red), drain(ch, blue), drain(ch, both)), ([b"red"], [b"blue"], [b"red", b"blue"]))


@check
def fanout_exchange():
    with channel(confirm=True) as ch:
        queues = [bound(ch, "amq.fanout", f"k{i}") for i in range(5)]
        publish(ch, "whatever", b"all", "amq.fanout")
        same([drain(ch, queue) for queue in queues], [[b"all"]] * 5)


@check
def topic_exchange():
    with channel(confirm=True) as ch:
        keys = ["", "a", "a.b", "a.b.c", "a..b", ".", "b", "x.b.y", "a.x.c", "*", "#"]
        wanted = {
            "a": ["a"],
            "#": keys,
            "*": ["a", "b", "*", "#"],
            "a.#": ["a", "a.b", "a.b.c", "a..b", "a.x.c"],
            "a.*": ["a.b"],
            "*.*": ["a.b", "."],
            "a.*.c": ["a.b.c", "a.x.c"],
            "#.b.#": ["a.b", "a.b.c", "a..b", "b", "x.b.y"],
            "a.*.*": ["a.b.c", "a..b", "a.x.c"],
            "a*": [],
            "#.#": keys,
            "*.#": [key for key in keys if key],
        }
        queues = {pattern: bound(ch, "amq.topic", pattern) for pattern in wanted}
        for key in keys:
            publish(ch, key, key.encode() or b"(empty)", "amq.topic")
        for pattern, expected in wanted.items():
            same(drain(ch, queues[pattern]), [key.encode() or b"(empty)" for key in expected], f"pattern {pattern!r}")


@check
def headers_exchange():
    with channel(confirm=True) as ch:
        every = bound(ch, "amq.headers", "", {"x-match": "all", "a": 1, "b": "two"})
        some = bound(ch, "amq.headers", "", {"x-match": "any", "a": 1, "b": "two"})
        present = bound(ch, "amq.match", "", {"a": None})
        ch.exchange_bind("amq.match", "amq.headers", "", {"x-match": "any", "a": None})
        for i, headers in enumerate(({"a": 1, "b": "two"}, {"a": 1}, {"b": "two"}, {"a": 2}, {})):
            publish(ch, "", b"%d" % i, "amq.headers", headers=headers)
        ch.exchange_unbind("amq.match", "amq.headers", "", {"x-match": "any", "a": None})
        same((drain(ch, every), drain(ch, some), drain(ch, present)), ([b"0"], [b"0", b"1", b"2"], [b"0", b"1", b"3"]))


@check
def default_exchange_reaches_every_queue_by_name():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        publish(ch, queue, b"x")
        same(get(ch, queue, True)[2], b"x")


@check
def exchange_to_exchange_bindings_and_cycles():
    with channel(confirm=True) as ch:
        first, second = fresh("x"), fresh("x")
        ch.exchange_declare(first, "direct")
        ch.exchange_declare(second, "topic")
        ch.exchange_bind(second, first, "a.b")
        ch.exchange_bind(first, second, "#")
        queue = bound(ch, second, "a.*")
        publish(ch, "a.b", b"once", first)
        publish(ch, "a.c", b"never", first)
        method, _, body = get(ch, queue, True)
        same((body, method.exchange, method.routing_key), (b"once", first, "a.b"))
        ch.exchange_unbind(second, first, "a.b")
        publish(ch, "a.b", b"never", first)
        same(drain(ch, queue), [])
        ch.exchange_delete(first), ch.exchange_delete(second)


@check
def a_message_enters_a_queue_once_however_many_bindings_match():
    with channel(confirm=True) as ch:
        queue = bound(ch, "amq.topic", "a.#")
        ch.queue_bind(queue, "amq.topic", "#.b")
        ch.queue_bind(queue, "amq.topic", "a.b")
        publish(ch, "a.b", b"x", "amq.topic")
        same(drain(ch, queue), [b"x"])


@check
def alternate_exchange_takes_what_finds_no_queue():
    with channel(confirm=True) as ch:
        spare, exchange = fresh("x"), fresh("x")
        ch.exchange_declare(spare, "fanout")
        ch.exchange_declare(exchange, "direct", arguments={"alternate-exchange": spare})
        direct, caught = bound(ch, exchange, "known"), bound(ch, spare)
        publish(ch, "known", b"a", exchange, mandatory=True)
        publish(ch, "unknown", b"b", exchange, mandatory=True)
        same((drain(ch, direct), drain(ch, caught)), ([b"a"], [b"b"]))
        ch.exchange_delete(exchange), ch.exchange_delete(spare)


@check
def cc_and_bcc_add_routing_keys():
    with channel(confirm=True) as ch:
        queues = [bound(ch, "amq.direct", f"cc-{i}") for i in range(3)]
        publish(ch, "cc-0", b"x", "amq.direct", headers={"CC": ["cc-1"], "BCC": ["cc-2"], "other": 1})
        for queue in queues:
            method, properties, _ = get(ch, queue, True)
            same((method.routing_key, properties.headers), ("cc-0", {"CC": ["cc-1"], "other": 1}))


@check
def auto_delete_exchange_goes_with_its_last_binding():
    with channel() as ch:
        exchange = fresh("x")
        ch.exchange_declare(exchange, "fanout", auto_delete=True)
        queue = bound(ch, exchange)
        ch.queue_unbind(queue, exchange, "")
        try:
            ch.exchange_declare(exchange, passive=True)
            raise AssertionError("still there")
        except exceptions.ChannelClosedByBroker as closed:
            same(closed.reply_code, 404)


@check
def internal_exchange_is_fed_by_others_only():
    with channel(confirm=True) as ch:
        exchange = fresh("x")
        ch.exchange_declare(exchange, "fanout", internal=True)
        ch.exchange_bind(exchange, "amq.direct", exchange)
        queue = bound(ch, exchange)
        publish(ch, exchange, b"x", "amq.direct")
        same(drain(ch, queue), [b"x"])
        try:
            publish(ch, "", b"x", exchange)
            raise AssertionError("published")
        except exceptions.ChannelClosedByBroker as closed:
            same(closed.reply_code, 403)
        with channel() as other:
            other.exchange_delete(exchange)


@check
def queue_bindings_go_with_the_queue():
    with channel(confirm=True) as ch:
        exchange = fresh("x")
        ch.exchange_declare(exchange, "direct")
        queue = bound(ch, exchange, "k")
        ch.queue_delete(queue)
        same(ch.exchange_delete(exchange, if_unused=True).method.NAME, "Exchange.DeleteOk")
