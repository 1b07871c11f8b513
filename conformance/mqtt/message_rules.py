"""What happens to a message: QoS both ways, retained messages, topics, order, the properties of 5.0."""

import time

from rawmqtt import codec
from rawmqtt.codec import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from rules import ALL, V5, V311, Client, fresh, lasting, rule, same


def pair(version, topic=None, qos=2, **options):
    """A publisher, a subscriber and their topic."""
    topic = topic or fresh()
    subscriber = Client(version, **options)
    subscriber.subscribe(topic, qos=qos)
    return Client(version), subscriber, topic


@rule(v3="3.3.4-1 4.3.1-1 2.3.1-5 3.8.4-6 3.8.4-1 3.8.4-2 2.3.1-7 3.3.1-3 3.9.3-2",
      v5="3.3.4-1 4.3.1-1 2.2.1-2 3.8.4-8 3.8.4-1 3.8.4-2 2.2.1-6 2.2.2-1 3.3.1-3 3.8.4-7 3.9.3-2")  # fmt: skip
def every_qos_in_meets_every_qos_out(version):
    publisher = Client(version)
    for granted in (0, 1, 2):
        topic = fresh()
        subscriber = Client(version)
        subscriber.subscribe(topic, qos=granted)
        for sent in (0, 1, 2):
            publisher.publish(topic, f"{sent}", qos=sent)
            got = subscriber.next()
            same((got.payload, got.qos, got.dup, got.retain), (f"{sent}".encode(), min(sent, granted), False, False))
            assert bool(got.number) == bool(got.qos)
        subscriber.nothing()


@rule(v3="4.3.2-2 2.3.1-6", v5="4.3.2-4 4.3.2-5 2.2.1-5")
def after_puback_the_same_id_is_a_new_message(version):
    publisher, subscriber, topic = pair(version)
    for payload, dup in ((b"one", False), (b"two", False), (b"three", True)):
        publisher.publish(topic, payload, qos=1, number=9, dup=dup)
    same(subscriber.payloads(3), [b"one", b"two", b"three"])
    same([subscriber.dup for subscriber in subscriber.seen if subscriber.kind == PUBLISH], [False] * 3)


@rule(v3="4.3.3-2 2.3.1-6 3.3.1-3", v5="4.3.3-8 4.3.3-10 4.3.3-11 2.2.1-5 3.3.1-3")
def a_repeated_qos_2_publish_is_delivered_once(version):
    publisher, subscriber, topic = pair(version)
    for dup in (False, True, True):
        publisher.send(codec.publish(version, topic, b"once", 2, 5, dup=dup))
        same(publisher.wait(PUBREC, 5).reason & 0x80, 0)
    for _ in range(2):  # a repeated PUBREL is answered again
        publisher.send(codec.ack(version, PUBREL, 5))
        publisher.wait(PUBCOMP, 5)
    got = subscriber.next()
    same((got.payload, got.dup), (b"once", False))
    subscriber.nothing()


@rule(v3="4.3.3-2 2.3.1-3", v5="4.3.3-12")
def after_pubcomp_the_same_id_is_a_new_message(version):
    publisher, subscriber, topic = pair(version)
    publisher.publish(topic, b"one", qos=2, number=5)
    publisher.publish(topic, b"two", qos=2, number=5)
    same(subscriber.payloads(2), [b"one", b"two"])


@rule(v5="4.3.3-9")
def after_an_error_pubrec_the_id_is_fresh(version):
    client = Client(version)
    answer = client.publish("$SYS/broker/version", b"x", qos=2, number=5, wanted=(0x87, 0x90, 0x80, 0x83))
    assert answer.reason >= 0x80
    topic = fresh()
    client.subscribe(topic, qos=2)
    client.publish(topic, b"fresh", qos=2, number=5)
    same(client.next().payload, b"fresh")


@rule(v3="4.3.3-2", v5="4.3.3-11")
def an_unknown_pubrel_is_answered(version):
    client = Client(version)
    client.send(codec.ack(version, PUBREL, 77))
    found = client.wait(PUBCOMP, 77)
    assert found.reason in (0, 0x92), found
    client.ping()


@rule(v3="4.8.0-1", v5="4.13.1-1")
def acknowledgements_of_nothing_are_survived(version):
    client = Client(version)
    for kind in (PUBACK, PUBREC, PUBCOMP):
        client.send(codec.ack(version, kind, 77))
    client.ping()


@rule(v3="4.3.3-1 2.3.1-4 2.3.1-6 3.6.1-1", v5="4.3.3-1 4.3.3-2 4.3.3-3 4.3.3-4 4.3.3-5 4.3.3-6 2.2.1-4 2.2.1-5")
def a_qos_2_delivery_goes_through_all_four_steps(version):
    publisher, subscriber, topic = pair(version, manual=True)
    publisher.publish(topic, b"x", qos=2)
    got = subscriber.next()
    same((got.qos, got.dup), (2, False))
    subscriber.ping()  # until PUBREC nothing more is said about it
    same((subscriber.inbox, subscriber.other), ([], []))
    subscriber.send(codec.ack(version, PUBREC, got.number))
    release = subscriber.wait(PUBREL, got.number)
    same((release.flags, release.reason), (2, 0))
    subscriber.ping()
    same(subscriber.inbox, [])
    subscriber.send(codec.ack(version, PUBREC, got.number))  # again: PUBREL, never PUBLISH
    subscriber.wait(PUBREL, got.number)
    subscriber.send(codec.ack(version, PUBCOMP, got.number))
    subscriber.manual = False
    subscriber.nothing(publisher)


@rule(v3="4.3.2-1 2.3.1-4", v5="4.3.2-1 4.3.2-2 4.3.2-3 2.2.1-4 4.4.0-1")
def qos_1_deliveries_have_ids_of_their_own_and_wait_for_puback(version):
    publisher, subscriber, topic = pair(version, qos=1, manual=True)
    for n in range(10):
        publisher.publish(topic, str(n), qos=1)
    got = [subscriber.next() for _ in range(10)]
    same(len({one.number for one in got}), 10)
    assert all(one.number and not one.dup for one in got)
    time.sleep(1.5)  # nothing is sent again while the connection stands
    subscriber.ping()
    same(subscriber.inbox, [])
    for one in reversed(got):  # acknowledged in any order
        subscriber.settle(one)
    subscriber.ping()


@rule(v5="4.4.0-2 4.9.0-1")
def an_error_puback_or_pubrec_ends_the_delivery(version):
    publisher = Client(version)
    topic = fresh()
    subscriber = lasting(version, manual=True, properties=[("receive_maximum", 1)])
    subscriber.subscribe(topic, qos=2)
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        publisher.publish(topic, f"refused {qos}", qos=qos)
        got = subscriber.next()
        subscriber.send(codec.ack(version, kind, got.number, 0x83))
    publisher.publish(topic, b"next", qos=1)
    got = subscriber.next()
    same(got.payload, b"next")
    subscriber.settle(got)
    subscriber.ping()
    subscriber.drop()
    back = lasting(version, subscriber.client_id)
    back.nothing()
    Client(version, subscriber.client_id).leave()


@rule(v3="4.6.0-6 4.6.0-5", v5="4.6.0-5 4.6.0-6")
def each_topic_keeps_its_order(version):
    publisher, subscriber, topic = pair(version, fresh() + "/#")
    topic = topic[:-1]
    count, flying = 300, set()
    for n in range(count):
        publisher.send(codec.publish(version, topic + str(n % 3), str(n), n % 3, n + 1 if n % 3 else 0))
        flying |= {n + 1} if n % 3 else set()
        while len(flying) > (9 if n < count - 1 else 0):
            found = publisher.packet()
            if found.kind == PUBREC:
                publisher.send(codec.ack(version, PUBREL, found.number))
            elif found.kind in (PUBACK, PUBCOMP):
                flying.discard(found.number)
    got = [subscriber.next() for _ in range(count)]
    for level in range(3):
        numbers = [int(one.payload) for one in got if one.topic == topic + str(level)]
        same(numbers, list(range(level, count, 3)), f"order of {level}")


@rule(v3="3.3.2-3 4.5.0-1 4.7.1-1", v5="3.3.2-3 4.5.0-1 4.7.0-1")
def filters_match_as_written(version):
    root = fresh()
    topics = ["", "/", "/a", "/a/", "/a//c", "/a/b", "/a/b/c", "/b", "//a", "x"]
    table = {
        "#": topics[:-1], "a": ["/a"], "+": ["/", "/a", "/b"], "a/+": ["/a/", "/a/b"], "a/#": ["/a", "/a/", "/a//c", "/a/b", "/a/b/c"],
        "+/b": ["/a/b"], "+/+": ["/a/", "/a/b", "//a"], "/a": ["//a"], "+/a": ["//a"], "a/+/c": ["/a//c", "/a/b/c"],
        "+/+/c": ["/a//c", "/a/b/c"], "a//c": ["/a//c"], "a/+/#": ["/a/", "/a//c", "/a/b", "/a/b/c"],
    }  # fmt: skip
    publisher = Client(version)
    for text, wanted in table.items():
        subscriber = Client(version)
        subscriber.subscribe(f"{root}/{text}")
        for topic in topics:
            publisher.publish(root + topic, b"m")
        subscriber.subscribe(f"{root}end")
        publisher.publish(f"{root}end", b"", qos=1)
        got = []
        while (found := subscriber.next().topic) != f"{root}end":
            got.append(found.removeprefix(root))
        same(sorted(got), sorted(wanted), text)


@rule(v3="4.7.3-4 1.5.3-3", v5="4.7.3-4 1.5.4-3")
def topics_are_bytes_and_come_back_as_they_were_sent(version):
    root = fresh()
    subscriber = Client(version)
    subscriber.subscribe(f"{root}/#")
    topics = [
        f"{root}/{name}"
        for name in ("a.b/c", "a/b.c", "ä", "a\u0308", "\ufeffx", "日本語/温度", "𝄞", " ", "a b", "star*", "plant.*.temp", "A", "a",
                     "/", "//", "x/", "\u00a0", "%2f", "\x7f", "emoji/🚀/🎯", "...", "./.", "*/*", ".")
    ]  # fmt: skip
    publisher = Client(version)
    for topic in topics:
        publisher.publish(topic, topic, qos=1)
    got = [subscriber.next() for _ in topics]
    same([one.topic for one in got], topics)
    same([one.payload.decode() for one in got], topics)
    for topic in topics:  # and each is a filter that matches itself alone
        subscriber = Client(version)
        subscriber.subscribe(topic)
        for other in topics:
            publisher.publish(other, other, qos=1)
        same(subscriber.next().topic, topic)
        subscriber.nothing(publisher)


@rule(v3="4.7.3-3", v5="4.7.3-3")
def a_topic_may_be_65535_bytes_long(version):
    topic = fresh() + "x" * 60_000
    topic += "y" * (65_535 - len(topic))
    client = Client(version)
    client.subscribe(topic, qos=1)
    client.publish(topic, b"long", qos=1)
    got = client.next()
    same((got.topic, got.payload), (topic, b"long"))


@rule(v3="4.7.2-1", v5="4.7.2-1")
def dollar_topics_are_hidden_from_leading_wildcards(version):
    name = fresh("$d")
    one, other, named = Client(version), Client(version), Client(version)
    one.subscribe("#")
    other.subscribe("+/x")
    named.subscribe(f"{name}/#")
    named.publish(f"{name}/x", b"hidden", qos=1)
    named.publish(f"end{name}", b"", qos=1)
    same(named.next().payload, b"hidden")
    other.nothing(named)
    one.publish(f"end2{name}", b"", qos=1)
    while True:
        topic = one.next().topic
        assert not topic.startswith("$"), topic
        if topic == f"end2{name}":
            break


@rule(versions=ALL)
def sys_tells_what_dashboards_read(version):
    client = Client(version)
    client.subscribe("$SYS/#", qos=1)
    wanted = {"version", "uptime", "clients/connected", "clients/total", "messages/received", "messages/sent", "subscriptions/count",
              "retained messages/count", "publish/messages/received", "publish/messages/sent", "bytes/received", "bytes/sent"}  # fmt: skip
    while wanted:
        found = client.next()
        wanted.discard(found.topic.removeprefix("$SYS/broker/"))


@rule(v3="3.3.5-2", versions=ALL)
def nobody_publishes_below_sys(version):
    watcher = Client(version)
    watcher.subscribe("$SYS/forged")
    client = Client(version)
    client.publish("$SYS/forged", b"x", qos=1, wanted=(0x87,) if version == V5 else (0,))
    watcher.nothing()


@rule(v3="3.3.1-5 3.3.1-6 3.3.1-8 3.1.2-7 3.3.1-9", v5="3.3.1-5 3.3.1-9 3.3.1-12")
def a_retained_message_goes_to_new_subscriptions_and_wildcards(version):
    root = fresh()
    publisher, live = Client(version), Client(version)
    live.subscribe(f"{root}/#", qos=2)
    for n in range(3):
        publisher.publish(f"{root}/{n}", f"old {n}", qos=n, retain=True)
        publisher.publish(f"{root}/{n}", f"new {n}", qos=n, retain=True)
    for _ in range(6):
        same(live.next().retain, False, "retain of a live message")
    publisher.leave()
    for text in (f"{root}/#", f"{root}/+", f"+/+"):
        late = Client(version)
        late.subscribe(text, qos=1)
        got = []
        while len(got) < 3:
            got += [one for one in (late.next(),) if one.topic.startswith(root + "/")]
        same(sorted((one.topic[-1], one.payload, one.qos, one.retain) for one in got),
             [(str(n), f"new {n}".encode(), min(n, 1), True) for n in range(3)])  # fmt: skip
    clear = Client(version)
    for n in range(3):
        clear.publish(f"{root}/{n}", b"", qos=1, retain=True)


@rule(v3="3.3.1-10 3.3.1-11 3.3.1-12", v5="3.3.1-6 3.3.1-7 3.3.1-8")
def an_empty_retained_message_clears(version):
    topic = fresh()
    client = Client(version)
    client.publish(topic, b"kept", qos=1, retain=True)
    client.publish(topic, b"not kept", qos=1)
    client.publish(topic, b"", qos=1)  # without RETAIN: clears nothing
    late = Client(version)
    late.subscribe(topic, qos=1)
    same(late.next().payload, b"kept")
    client.publish(topic, b"", qos=1, retain=True)
    got = late.next()  # the clearing itself is delivered as any message
    same((got.payload, got.retain), (b"", False))
    later = Client(version)
    later.subscribe(topic, qos=1)
    later.nothing()


@rule(v3="3.3.1-7", v5="3.3.1-5")
def a_retained_message_of_qos_0_replaces_the_former(version):
    topic = fresh()
    client = Client(version)
    client.publish(topic, b"first", qos=1, retain=True)
    client.publish(topic, b"second", qos=0, retain=True)
    client.ping()
    late = Client(version)
    late.subscribe(topic)
    same(late.next().payload, b"second")
    client.publish(topic, b"", qos=1, retain=True)


@rule(v3="3.8.4-3", v5="3.8.4-3 3.8.4-4")
def the_same_filter_again_replaces_and_replays(version):
    topic = fresh()
    client = Client(version)
    client.publish(topic, b"kept", qos=2, retain=True)
    client.subscribe(topic, qos=0)
    got = client.next()
    same((got.payload, got.qos, got.retain), (b"kept", 0, True))
    client.subscribe(topic, qos=2)
    got = client.next()
    same((got.payload, got.qos, got.retain), (b"kept", 2, True))
    client.publish(topic, b"live", qos=2)
    got = client.next()
    same((got.payload, got.qos), (b"live", 2))
    client.nothing()
    client.publish(topic, b"", qos=1, retain=True)


@rule(v5="3.3.1-9 3.3.1-10 3.3.1-11")
def retain_handling_decides_about_the_replay(version):
    topic = fresh()
    client = Client(version)
    client.publish(topic, b"kept", qos=1, retain=True)
    client.subscribe(topic, handling=2)
    client.nothing()
    client.subscribe(topic, handling=1)  # it exists already
    client.nothing()
    client.subscribe(topic, handling=0)
    same(client.next().payload, b"kept")
    client.unsubscribe(topic)
    client.subscribe(topic, handling=1)
    same(client.next().payload, b"kept")
    client.nothing()
    client.publish(topic, b"", qos=1, retain=True)


@rule(v5="3.3.1-12 3.3.1-13")
def retain_as_published_keeps_the_flag(version):
    topic = fresh()
    cleared, kept, publisher = Client(version), Client(version), Client(version)
    cleared.subscribe(topic)
    kept.subscribe(topic, as_published=True)
    publisher.publish(topic, b"r", retain=True)
    publisher.publish(topic, b"n")
    same([cleared.next().retain for _ in range(2)], [False, False])
    same([kept.next().retain for _ in range(2)], [True, False])
    publisher.publish(topic, b"", qos=1, retain=True)


@rule(v3="3.3.5-1", v5="3.3.4-2")
def overlapping_subscriptions_respect_the_highest_qos(version):
    root = fresh()
    client, publisher = Client(version), Client(version)
    client.subscribe(f"{root}/+", qos=1)
    client.subscribe(f"{root}/#", qos=2)
    client.subscribe(f"{root}/a", qos=0)
    publisher.publish(f"{root}/a", b"x", qos=2)
    mark = fresh()
    client.subscribe(mark)
    publisher.publish(mark, b"")
    got = []
    while (found := client.next()).topic != mark:
        got.append(found.qos)
    assert max(got) == 2 and len(got) in (1, 3), got


@rule(v3="3.8.4-4 3.8.4-5 3.9.3-1 3.10.4-6", v5="3.8.4-5 3.8.4-6 3.9.3-1 3.10.4-6 3.11.3-1 3.11.3-2 3.8.4-7")
def many_filters_have_one_answer_with_a_code_each(version):
    client = Client(version)
    root = fresh()
    rows = [(f"{root}/{n}", codec.options(n % 3)) for n in range(30)]
    same(client.subscribe(*rows).reasons, tuple(n % 3 for n in range(30)))
    for n in range(30):
        client.publish(f"{root}/{n}", str(n), qos=2)
    same([(one.payload, one.qos) for one in (client.next() for _ in range(30))], [(str(n).encode(), n % 3) for n in range(30)])
    gone = client.unsubscribe(*(row[0] for row in rows[:20]), fresh())
    same(gone.reasons, tuple([0] * 20 + [0x11]) if version == V5 else ())
    for n in range(30):
        client.publish(f"{root}/{n}", str(n), qos=1)
    same(client.payloads(10), [str(n).encode() for n in range(20, 30)])
    client.nothing()


@rule(v3="3.10.4-1 3.10.4-2 3.10.4-4 3.10.4-5 2.3.1-7", v5="3.10.4-1 3.10.4-2 3.10.4-4 3.10.4-5 2.2.1-6")
def unsubscribe_takes_exactly_that_filter(version):
    topic = fresh()
    client = Client(version)
    client.subscribe(topic)
    for other in (topic + "/#", "#", "+", topic.upper(), topic + "/"):
        answer = client.unsubscribe(other)
        same(answer.reasons, (0x11,) if version == V5 else ())
    client.publish(topic, b"still", qos=1)
    same(client.next().payload, b"still")
    same(client.unsubscribe(topic).reasons, (0,) if version == V5 else ())
    client.publish(topic, b"gone", qos=1)
    client.nothing()


@rule(v3="3.10.4-3", v5="3.10.4-3")
def unsubscribe_lets_started_deliveries_finish(version):
    publisher, client, topic = pair(version, manual=True)
    publisher.publish(topic, b"one", qos=1)
    publisher.publish(topic, b"two", qos=2)
    one, two = client.next(), client.next()
    client.unsubscribe(topic)
    client.settle(one)
    client.settle(two)
    client.ping()


@rule(v5="3.8.3-3")
def no_local_keeps_a_clients_own_messages_away(version):
    topic = fresh()
    client, other = Client(version), Client(version)
    client.subscribe(topic, no_local=True, qos=1)
    client.publish(topic, b"mine", qos=1)
    other.publish(topic, b"other", qos=1)
    same(client.next().payload, b"other")
    client.nothing()


@rule(v5="3.3.4-3 3.3.4-4 3.3.4-5")
def subscription_identifiers_come_with_each_delivery(version):
    root = fresh()
    client, publisher = Client(version), Client(version)
    publisher.publish(f"{root}/a", b"kept", qos=1, retain=True)
    client.subscribe(f"{root}/+", qos=1, properties=[("subscription_identifier", 1)])
    same(client.next().all("subscription_identifier"), [1])
    client.subscribe(f"{root}/#", qos=1, handling=2, properties=[("subscription_identifier", 268_435_455)])
    client.subscribe(f"{root}/a", qos=1, handling=2)
    publisher.publish(f"{root}/a", b"live", qos=1)
    mark = fresh()
    client.subscribe(mark)
    publisher.publish(mark, b"")
    got = []
    while (found := client.next()).topic != mark:
        got += found.all("subscription_identifier")
    same(sorted(got), [1, 268_435_455])
    client.subscribe(f"{root}/+", qos=1, handling=2, properties=[("subscription_identifier", 7)])  # replaced
    client.unsubscribe(f"{root}/#")
    client.unsubscribe(f"{root}/a")
    publisher.publish(f"{root}/a", b"live", qos=1)
    same(client.next().all("subscription_identifier"), [7])
    publisher.publish(f"{root}/a", b"", qos=1, retain=True)


@rule(v5="3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20")
def properties_arrive_unaltered_and_in_order(version):
    publisher, subscriber, topic = pair(version)
    sent = [
        ("payload_format", 1), ("content_type", "text/plain; charset=utf-8"), ("response_topic", "re/pl.y/to*"),
        ("correlation_data", b"\0\xff\1" * 100), ("user", ("b", "1")), ("user", ("a", "2")), ("user", ("b", "1")), ("user", ("", "")),
        ("user", ("ключ", "🚀")),
    ]  # fmt: skip
    publisher.publish(topic, "text", qos=2, properties=sent)
    publisher.publish(topic, b"kept", qos=1, retain=True, properties=sent)
    late = Client(version)
    late.subscribe(topic)
    for got in (subscriber.next(), subscriber.next(), late.next()):
        for name in ("payload_format", "content_type", "response_topic", "correlation_data"):
            same(got.get(name), dict(sent[:4])[name], name)
        same(got.all("user"), [value for name, value in sent if name == "user"])
        same(len(got.properties), len(sent))
    old = Client(V311)
    old.subscribe(topic)
    same(old.next().payload, b"kept")
    publisher.publish(topic, b"", qos=1, retain=True)


@rule(v5="3.3.2-5 3.3.2-6")
def a_message_expires_and_says_how_long_it_still_has(version):
    topic = fresh()
    away = lasting(version)
    away.subscribe(topic, qos=1)
    away.leave()
    publisher = Client(version)
    publisher.publish(topic, b"short", qos=1, properties=[("message_expiry", 1)])
    publisher.publish(topic, b"long", qos=1, properties=[("message_expiry", 300)])
    publisher.publish(topic, b"ever", qos=1)
    kept = topic + "kept"
    publisher.publish(kept, b"short", qos=1, retain=True, properties=[("message_expiry", 1)])
    publisher.publish(kept + "long", b"long", qos=1, retain=True, properties=[("message_expiry", 300)])
    time.sleep(2.2)
    back = lasting(version, away.client_id)
    got = back.next()
    same(got.payload, b"long")
    assert 0 < got.get("message_expiry") <= 298, got.get("message_expiry")
    got = back.next()
    same((got.payload, got.get("message_expiry")), (b"ever", None))
    back.subscribe(kept, kept + "long")
    got = back.next()
    same(got.payload, b"long")
    assert 0 < got.get("message_expiry") <= 298
    back.nothing()
    publisher.publish(kept + "long", b"", qos=1, retain=True)
    Client(version, away.client_id).leave()


@rule(v5="4.3.3-7 4.3.3-13")
def expiry_does_not_stop_a_handshake(version):
    topic = fresh()
    client = lasting(version, manual=True)
    client.subscribe(topic, qos=2)
    publisher = Client(version)
    publisher.publish(topic, b"begun", qos=2, properties=[("message_expiry", 1)])
    got = client.next()
    time.sleep(1.5)
    client.send(codec.ack(version, PUBREC, got.number))
    client.wait(PUBREL, got.number)
    client.drop()
    back = lasting(version, client.client_id, manual=True)
    back.wait(PUBREL, got.number)
    back.send(codec.ack(version, PUBCOMP, got.number))
    back.ping()
    Client(version, client.client_id).leave()


@rule(v5="3.3.2-12 3.3.2-7")
def an_alias_stands_for_its_topic(version):
    one, other = fresh(), fresh()
    client = Client(version)
    if not client.connack.get("topic_alias_maximum", 0):
        return
    client.subscribe(one, other, qos=1)
    client.publish(one, b"1", qos=1, properties=[("topic_alias", 1)])
    client.publish("", b"2", qos=1, properties=[("topic_alias", 1)])
    client.publish(other, b"3", qos=1, properties=[("topic_alias", 1)])
    client.publish("", b"4", qos=1, properties=[("topic_alias", 1)])
    most = client.connack.get("topic_alias_maximum")
    client.publish(one, b"5", qos=1, properties=[("topic_alias", most)])
    client.publish("", b"6", qos=1, properties=[("topic_alias", most)])
    got = [client.next() for _ in range(6)]
    same([(found.topic, found.payload) for found in got],
         [(one, b"1"), (one, b"2"), (other, b"3"), (other, b"4"), (one, b"5"), (one, b"6")])  # fmt: skip
    assert not any(found.get("topic_alias") for found in got)
    again = Client(version, client.client_id)  # aliases end with the connection
    again.send(codec.publish(version, "", b"x", properties=[("topic_alias", 1)]))
    again.ended((0x82,))


@rule(v5="3.1.2-26 3.1.2-27 3.3.2-11")
def aliases_of_the_server_stay_within_the_clients_maximum(version):
    root = fresh()
    client, publisher = Client(version, properties=[("topic_alias_maximum", 3)]), Client(version)
    client.subscribe(f"{root}/#")
    names = {}
    for n in range(60):
        publisher.publish(f"{root}/{n % 6}", str(n))
        got = client.next()
        alias = got.get("topic_alias")
        assert alias is None or 1 <= alias <= 3, alias
        if got.topic and alias:
            names[alias] = got.topic
        same(got.topic or names.get(alias), f"{root}/{n % 6}")


@rule(v5="3.1.2-24 3.1.2-25")
def what_is_larger_than_the_client_takes_is_left_out(version):
    topic = fresh()
    small, whole, publisher = Client(version, properties=[("maximum_packet_size", 128)]), Client(version), Client(version)
    for client in (small, whole):
        client.subscribe(topic, qos=1)
    publisher.publish(topic, b"small", qos=1)
    publisher.publish(topic, b"x" * 500, qos=1)
    publisher.publish(topic, b"after", qos=1, properties=[("user", ("k", "v" * 10))])
    same([small.next().payload for _ in range(2)], [b"small", b"after"])
    same([len(whole.next().payload) for _ in range(3)], [5, 500, 5])
    small.nothing()


@rule(v5="3.3.4-9 3.3.4-10 4.9.0-1 4.9.0-2 4.9.0-3")
def no_more_in_flight_than_the_client_takes(version):
    topic = fresh()
    client, publisher = Client(version, manual=True, properties=[("receive_maximum", 2)]), Client(version)
    client.subscribe(topic, qos=2)
    for n in range(6):
        publisher.publish(topic, str(n), qos=1 + n % 2)
    publisher.publish(topic, b"past", qos=0)
    client.ping()
    first = [client.next() for _ in range(3)]
    same([one.payload for one in first], [b"0", b"1", b"past"])
    client.ping()
    same(client.inbox, [])
    held = first[:2]
    for n in range(2, 6):  # each settled one makes room for one
        client.settle(held.pop(0))
        got = client.next()
        same(got.payload, str(n).encode())
        client.ping()
        same(client.inbox, [])
        held.append(got)


@rule(versions=ALL)
def big_payloads_pass(version):
    publisher, subscriber, topic = pair(version)
    for qos, size in ((0, 1 << 20), (1, 5 << 20), (2, 3 << 20), (1, 0), (2, 127), (1, 16_383)):
        payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        publisher.publish(topic, payload, qos=qos)
        got = subscriber.next()
        assert got.payload == payload, f"{len(got.payload)} bytes of {size}"


@rule(v5="3.4.2-1")
def a_publish_nobody_wants_is_taken(version):
    client = Client(version)
    for qos in (1, 2):
        assert client.publish(fresh(), b"x", qos=qos).reason in (0, 0x10)


@rule(v5="3.4.2-2 3.4.2-3 3.5.2-2 3.5.2-3 3.6.2-2 3.6.2-3 3.7.2-2 3.7.2-3 3.9.2-1 3.9.2-2 3.11.2-1 3.11.2-2")
def answers_fit_into_the_clients_maximum(version):
    client = Client(version, properties=[("maximum_packet_size", 24)])
    for number, data in enumerate(
        (codec.publish(version, "$SYS/x", b"x", 1, 1), codec.publish(version, "$SYS/x", b"x", 2, 2), codec.ack(version, PUBREC, 3),
         codec.ack(version, PUBREL, 4), codec.subscribe(version, 5, [("ok", 0)]), codec.unsubscribe(version, 6, ["no"])), 1
    ):  # fmt: skip
        client.send(data)
        found = client.packet()
        same(found.number, number)
        assert len(found.raw) <= 24, found


@rule(v5="4.8.2-3", versions=(V311, V5))
def shared_subscriptions_share(version):
    topic = fresh()
    members = [Client(version) for _ in range(3)]
    for qos, member in enumerate(members):
        member.subscribe(f"$share/group/{topic}", qos=qos)
    beside = Client(version)
    beside.subscribe(topic, qos=1)
    publisher = Client(version)
    for n in range(60):
        publisher.publish(topic, str(n), qos=1)
    same([int(beside.next().payload) for _ in range(60)], list(range(60)))
    got = []
    for qos, member in enumerate(members):
        member.ping()
        same({one.qos for one in member.inbox}, {min(qos, 1)}, "QoS of the member")
        assert len(member.inbox) >= 10, [len(other.inbox) for other in members]
        got += [int(one.payload) for one in member.inbox]
    same(sorted(got), list(range(60)))


@rule(versions=(V311, V5))
def shared_subscriptions_get_no_retained_messages(version):
    topic = fresh()
    client = Client(version)
    client.publish(topic, b"kept", qos=1, retain=True)
    client.subscribe(f"$share/group/{topic}", qos=1)
    client.nothing()
    client.publish(topic, b"", qos=1, retain=True)


@rule(versions=(V311, V5))
def two_groups_are_two_subscriptions_and_queue_is_one_of_its_own(version):
    topic = fresh()
    clients = [Client(version) for _ in range(3)]
    for client, prefix in zip(clients, ("$share/a", "$share/b", "$queue"), strict=True):
        client.subscribe(f"{prefix}/{topic}", qos=1)
    Client(version).publish(topic, b"each", qos=1)
    for client in clients:
        same(client.next().payload, b"each")


@rule(versions=(V311, V5))
def what_a_member_leaves_goes_to_another(version):
    topic = fresh()
    one, other, publisher = Client(version, manual=True), Client(version), Client(version)
    one.subscribe(f"$share/group/{topic}", qos=1)
    for n in range(4):
        publisher.publish(topic, str(n), qos=1)
    same(one.next().payload, b"0")
    other.subscribe(f"$share/group/{topic}", qos=1)
    one.drop()
    same(sorted(other.payloads(4)), [b"0", b"1", b"2", b"3"])
    publisher.publish(topic, b"4", qos=1)
    same(other.next().payload, b"4")


@rule(versions=(V311, V5))
def unsubscribing_leaves_the_group(version):
    topic = fresh()
    one, other = Client(version), Client(version)
    for client in (one, other):
        client.subscribe(f"$share/group/{topic}", qos=1)
    answer = one.unsubscribe(f"$share/group/{topic}")
    same(answer.reasons, (0,) if version == V5 else ())
    for n in range(6):
        one.publish(topic, str(n), qos=1)
    same(other.payloads(6), [str(n).encode() for n in range(6)])
    one.nothing()


@rule(v5="4.8.2-4")
def qos_2_begun_with_a_member_is_finished_with_it(version):
    topic = fresh()
    one, other, publisher = lasting(version, manual=True), Client(version), Client(version)
    one.subscribe(f"$share/group/{topic}", qos=2)
    publisher.publish(topic, b"mine", qos=2)
    got = one.next()
    one.send(codec.ack(version, PUBREC, got.number))
    one.wait(PUBREL, got.number)
    other.subscribe(f"$share/group/{topic}", qos=2)
    one.drop()
    other.nothing()
    back = lasting(version, one.client_id, manual=True)
    back.wait(PUBREL, got.number)
    back.send(codec.ack(version, PUBCOMP, got.number))
    back.ping()
    Client(version, one.client_id).leave()
    other.nothing()


@rule(v5="4.8.2-5")
def qos_2_begun_with_a_member_whose_session_ends_goes_to_nobody(version):
    topic = fresh()
    one, other, publisher = Client(version, manual=True), Client(version), Client(version)
    one.subscribe(f"$share/group/{topic}", qos=2)
    publisher.publish(topic, b"mine", qos=2)
    got = one.next()
    one.send(codec.ack(version, PUBREC, got.number))
    one.wait(PUBREL, got.number)
    other.subscribe(f"$share/group/{topic}", qos=2)
    one.leave()
    other.nothing()


@rule(v5="4.8.2-6")
def what_a_member_refuses_goes_to_nobody_else(version):
    topic = fresh()
    one, other, publisher = Client(version, manual=True), Client(version), Client(version)
    one.subscribe(f"$share/group/{topic}", qos=1)
    publisher.publish(topic, b"refused", qos=1)
    got = one.next()
    other.subscribe(f"$share/group/{topic}", qos=1)
    one.send(codec.ack(version, PUBACK, got.number, 0x83))
    one.ping()
    one.drop()
    other.nothing()


@rule(versions=ALL)
def a_subscriber_that_does_not_read_holds_up_nobody(version):
    topic = fresh()
    stuck, quick, publisher = Client(version), Client(version), Client(version)
    for client in (stuck, quick):
        client.subscribe(topic)
    payload = b"x" * 100_000
    for n in range(200):
        publisher.publish(topic, payload)
        if n % 20 == 19:
            publisher.ping()
            for _ in range(20):
                quick.next()


