"""Sessions and wills: what outlives a connection, what ends with it, and who hears of its end."""

import time

from rawmqtt import codec
from rawmqtt.codec import CONNACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Will
from rules import ALL, V5, V31, V311, Client, control, forget, fresh, lasting, rule, same


def kept(client):
    """The server says that it has kept the session; in 3.1 it has no way to say so."""
    same(client.present or client.version == V31, True, "session present")


@rule(v3="3.1.2-4 3.1.2-5 3.2.2-2 3.2.2-3 4.1.0-1 4.5.0-1", v5="3.1.2-5 3.1.2-6 3.1.2-23 3.2.2-3 4.1.0-1 4.5.0-1")
def a_session_waits_with_what_was_published(version):
    topic = fresh()
    client = lasting(version)
    same(client.present, False)
    client.subscribe(topic, qos=2)
    client.leave()
    publisher = Client(version)
    for n in range(50):
        publisher.publish(topic, str(n), qos=1 + n % 2)
    back = lasting(version, client.client_id)
    kept(back)
    same(back.seen[0].kind, CONNACK)
    got = [back.next() for _ in range(50)]
    same([(int(one.payload), one.qos, one.dup) for one in got], [(n, 1 + n % 2, False) for n in range(50)])
    publisher.publish(topic, b"live", qos=1)
    same(back.next().payload, b"live")
    back.leave()
    again = lasting(version, client.client_id)
    again.nothing()
    again.leave()
    forget(version, client.client_id)


@rule(v3="3.2.2-2 3.1.2-4", v5="3.2.2-3 3.1.2-5")
def a_session_without_subscriptions_is_present_too(version):
    client = lasting(version)
    client.leave()
    back = lasting(version, client.client_id)
    kept(back)
    back.leave()
    forget(version, client.client_id)


@rule(v3="3.1.2-6 3.2.2-1 3.2.2-3 3.1.4-3", v5="3.1.2-4 3.2.2-2 3.1.4-4")
def a_clean_start_forgets_everything(version):
    topic = fresh()
    client = lasting(version)
    client.subscribe(topic, qos=1)
    client.leave()
    publisher = Client(version)
    publisher.publish(topic, b"queued", qos=1)
    clean = lasting(version, client.client_id, clean=True) if version == V5 else Client(version, client.client_id)
    same(clean.present, False)
    publisher.publish(topic, b"live", qos=1)
    clean.nothing()
    clean.leave()
    same(lasting(version, client.client_id).present, version == V5)
    forget(version, client.client_id)


@rule(v3="3.1.2-6", v5="4.1.0-2 3.1.2-23")
def without_expiry_a_session_ends_with_its_connection(version):
    topic = fresh()
    client = Client(version, clean=version != V5)
    client.subscribe(topic, qos=1)
    client.drop()
    back = lasting(version, client.client_id)
    same(back.present, False)
    Client(version).publish(topic, b"x", qos=1)
    back.nothing()
    back.leave()
    forget(version, client.client_id)


@rule(v5="4.1.0-2")
def a_session_expires_in_its_time(version):
    client = lasting(version, expiry=1)
    client.drop()
    time.sleep(2.5)
    same(lasting(version, client.client_id).present, False)
    forget(version, client.client_id)
    longer = lasting(version, expiry=600)
    longer.drop()
    time.sleep(1.5)
    same(lasting(version, longer.client_id).present, True)
    forget(version, longer.client_id)


@rule(v5="4.1.0-2 3.1.2-23")
def disconnect_may_change_the_expiry(version):
    ended = lasting(version)
    ended.leave(0, [("session_expiry", 0)])
    same(lasting(version, ended.client_id).present, False)
    kept = lasting(version, expiry=1)
    kept.leave(0, [("session_expiry", 600)])
    time.sleep(2)
    same(lasting(version, kept.client_id).present, True)
    for client in (ended, kept):
        forget(version, client.client_id)


@rule(v5="4.13.1-1")
def disconnect_may_not_make_a_session_out_of_none(version):
    client = Client(version)
    client.send(codec.disconnect(version, 0, [("session_expiry", 60)]))
    client.ended((0x82,))


@rule(v3="4.4.0-1 4.6.0-1 3.3.1-1 2.3.1-4", v5="4.4.0-1 3.3.1-1 2.2.1-4")
def what_was_not_acknowledged_comes_again_with_its_id(version):
    topic, end = fresh(), fresh("w")
    watcher = Client(version)
    watcher.subscribe(end)
    client = lasting(version, manual=True, will=Will(end, b"noticed"))
    client.subscribe(topic, qos=2)
    publisher = Client(version)
    for n in range(8):
        publisher.publish(topic, str(n), qos=1 + n % 2)
    got = [client.next() for _ in range(8)]
    client.settle(got[0])
    client.settle(got[1])
    client.send(codec.ack(version, PUBREC, got[3].number))
    client.wait(PUBREL, got[3].number)
    client.drop()
    watcher.next()  # before the broker has noticed, it would still try to deliver
    publisher.publish(topic, b"queued", qos=1)
    back = lasting(version, client.client_id, manual=True)
    released, again = [], []
    while len(again) < 6:
        found = back.packet()
        (again if found.kind == PUBLISH else released).append(found)
    same([(one.kind, one.number) for one in released], [(PUBREL, got[3].number)])
    same([one.payload for one in again], [b"2", b"4", b"5", b"6", b"7", b"queued"])
    same([one.number for one in again[:5]], [got[n].number for n in (2, 4, 5, 6, 7)])
    same([one.dup for one in again], [True] * 5 + [False])
    back.send(codec.ack(version, PUBCOMP, got[3].number))
    for one in again:
        back.settle(one)
    back.leave()
    same(lasting(version, client.client_id).nothing(), None)
    forget(version, client.client_id)


@rule(v3="4.3.3-2 4.4.0-1", v5="4.3.3-10 4.3.3-8")
def a_qos_2_publish_repeated_after_a_reconnect_is_delivered_once(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic, qos=2)
    client = lasting(version)
    client.send(codec.publish(version, topic, b"once", 2, 11))
    client.wait(PUBREC, 11)
    client.drop()
    back = lasting(version, client.client_id)
    back.send(codec.publish(version, topic, b"once", 2, 11, dup=True))
    back.wait(PUBREC, 11)
    back.send(codec.ack(version, PUBREL, 11))
    back.wait(PUBCOMP, 11)
    same(watcher.next().payload, b"once")
    watcher.nothing()
    forget(version, client.client_id)


@rule(v3="3.1.4-2 3.1.4-3 3.2.2-2", v5="3.1.4-3 3.1.2-5 3.2.2-3")
def a_takeover_resumes_the_session(version):
    topic = fresh()
    old = lasting(version, manual=True)
    old.subscribe(topic, qos=1)
    publisher = Client(version)
    publisher.publish(topic, b"held", qos=1)
    held = old.next()
    new = lasting(version, old.client_id)
    kept(new)
    old.ended((0x8E,))
    got = new.next()
    same((got.payload, got.dup, got.number), (b"held", True, held.number))
    publisher.publish(topic, b"live", qos=1)
    same(new.next().payload, b"live")
    forget(version, old.client_id)


@rule(versions=ALL)
def qos_0_is_not_kept_for_who_is_away(version):
    topic = fresh()
    client = lasting(version)
    client.subscribe(topic, qos=1)
    client.leave()
    publisher = Client(version)
    publisher.publish(topic, b"zero", qos=0)
    publisher.publish(topic, b"one", qos=1)
    back = lasting(version, client.client_id)
    same(back.next().payload, b"one")
    back.nothing()
    forget(version, client.client_id)


@rule(v3="3.1.2-4", v5="3.1.2-5", versions=ALL)
def subscriptions_are_part_of_the_session(version):
    root = fresh()
    client = lasting(version)
    client.subscribe((f"{root}/a", 1), (f"{root}/b", 2), (f"{root}/c", 0))
    client.unsubscribe(f"{root}/c")
    client.drop()
    back = lasting(version, client.client_id)
    for name in "abc":
        back.publish(f"{root}/{name}", name, qos=2)
    same([(one.payload, one.qos) for one in (back.next(), back.next())], [(b"a", 1), (b"b", 2)])
    back.nothing()
    forget(version, client.client_id)


@rule(v5="3.1.2-23", versions=(V5,))
def options_and_identifiers_are_part_of_the_session(version):
    topic = fresh()
    client = lasting(version)
    client.subscribe(topic, qos=1, no_local=True, as_published=True, properties=[("subscription_identifier", 5)])
    client.drop()
    back = lasting(version, client.client_id)
    back.publish(topic, b"mine", qos=1)
    other = Client(version)
    other.publish(topic, b"other", qos=1, retain=True)
    got = back.next()
    same((got.payload, got.retain, got.all("subscription_identifier")), (b"other", True, [5]))
    other.publish(topic, b"", qos=1, retain=True)
    forget(version, client.client_id)


@rule(v3="3.1.2-8 3.1.2-10 3.1.2-12 3.14.4-3 3.1.2-16", v5="3.1.2-7 3.1.2-8 3.1.2-10 3.14.4-3 3.1.2-14")
def a_will_is_published_unless_the_client_says_goodbye(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic, qos=2)
    for qos in (0, 1, 2):
        Client(version, will=Will(topic, f"gone {qos}", qos)).drop()
        got = watcher.next()
        same((got.payload, got.qos, got.retain), (f"gone {qos}".encode(), qos, False))
    Client(version, will=Will(topic, b"polite")).leave()
    Client(version).drop()
    watcher.nothing()
    late = Client(version)
    late.subscribe(topic)
    late.nothing()


@rule(v3="3.1.2-17", v5="3.1.2-15")
def a_will_may_be_retained(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    Client(version, will=Will(topic, b"offline", 1, True)).drop()
    got = watcher.next()
    same((got.payload, got.retain), (b"offline", False))
    late = Client(version)
    late.subscribe(topic)
    got = late.next()
    same((got.payload, got.retain), (b"offline", True))
    Client(version, will=Will(topic, b"", 1, True)).drop()  # an empty one clears
    same(watcher.next().payload, b"")
    later = Client(version)
    later.subscribe(topic)
    later.nothing()


@rule(v5="3.14.4-3 3.1.2-8 3.14.2-1")
def disconnect_with_will_message_publishes_it(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    Client(version, will=Will(topic, b"asked for")).leave(4)
    same(watcher.next().payload, b"asked for")
    Client(version, will=Will(topic, b"an error")).leave(0x80)
    same(watcher.next().payload, b"an error")


@rule(v5="3.1.3-9 3.1.2-8 3.1.2-10")
def a_will_with_delay_waits_and_is_cancelled_by_a_return(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    begun = time.monotonic()
    late = lasting(version, will=Will(topic, b"late", properties=[("will_delay", 2)]))
    late.drop()
    back = lasting(version, will=Will(topic, b"cancelled", properties=[("will_delay", 2)]))
    back.drop()
    again = lasting(version, back.client_id)
    same(watcher.next().payload, b"late")
    assert time.monotonic() - begun >= 1.9, "published early"
    again.ping()
    time.sleep(1)
    watcher.nothing()
    for client in (late, again):
        forget(version, client.client_id)


@rule(v5="3.1.2-8 4.1.0-2")
def a_session_that_ends_publishes_its_will_before_the_delay(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    Client(version, will=Will(topic, b"no session", properties=[("will_delay", 600)])).drop()
    same(watcher.next().payload, b"no session")
    short = lasting(version, expiry=1, will=Will(topic, b"expired", properties=[("will_delay", 600)]))
    short.drop()
    same(watcher.next().payload, b"expired")
    ended = lasting(version, will=Will(topic, b"clean start", properties=[("will_delay", 600)]))
    ended.drop()
    forget(version, ended.client_id)
    same(watcher.next().payload, b"clean start")


@rule(v5="3.1.3-10 3.3.2-17")
def a_will_has_properties_too(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    sent = [("payload_format", 1), ("message_expiry", 300), ("content_type", "text/plain"), ("response_topic", "re/ply"),
            ("correlation_data", b"\0\1"), ("user", ("b", "1")), ("user", ("a", "2")), ("user", ("b", "1"))]  # fmt: skip
    Client(version, will=Will(topic, b"gone", 0, False, [("will_delay", 0), *sent])).drop()
    got = watcher.next()
    same(got.all("user"), [("b", "1"), ("a", "2"), ("b", "1")])
    for name, value in sent[:5]:
        if name != "message_expiry":
            same(got.get(name), value, name)
    assert 298 <= got.get("message_expiry") <= 300
    same(got.get("will_delay"), None)


@rule(v5="3.1.3-9")
def a_takeover_cancels_a_delayed_will_and_publishes_another(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    first = lasting(version, will=Will(topic, b"cancelled", properties=[("will_delay", 1)]))
    second = lasting(version, first.client_id, will=Will(topic, b"at once"))
    first.ended((0x8E,))
    time.sleep(1.5)
    watcher.nothing()
    third = lasting(version, first.client_id)
    second.ended((0x8E,))
    same(watcher.next().payload, b"at once")
    third.leave()
    forget(version, first.client_id)


@rule(v3="3.1.2-5 3.1.2-4 4.1.0-2 4.3.3-2 3.1.2-7", v5="3.1.2-23 4.1.0-1 4.3.3-10", alone=True)
def a_session_survives_a_restart_of_the_broker(version):
    _survives(version, "restart")


@rule(v3="4.1.0-2 4.3.3-1 4.3.3-2 3.1.2-7", v5="4.1.0-1 4.3.3-6 4.3.3-10", alone=True)
def a_session_survives_kill_9_of_the_broker(version):
    _survives(version, "kill")


def _survives(version, word):
    topic = fresh()
    client = lasting(version, manual=True)
    client.subscribe(f"{topic}/#", qos=2)
    publisher = lasting(version)
    publisher.publish(f"{topic}/kept", b"retained", qos=1, retain=True)
    for n in range(4):
        publisher.publish(f"{topic}/m", str(n), qos=1 + n % 2)
    got = [client.next() for _ in range(5)]
    client.settle(got[0])
    client.send(codec.ack(version, PUBREC, got[2].number))
    client.wait(PUBREL, got[2].number)
    client.drop()
    for n in range(4, 8):
        publisher.publish(f"{topic}/m", str(n), qos=1 + n % 2)
    publisher.send(codec.publish(version, f"{topic}/m", b"8", 2, 900))
    publisher.wait(PUBREC, 900)
    control(word)
    back = lasting(version, client.client_id, manual=True)
    kept(back)
    release, again = [], []
    while len(again) < 8:
        found = back.packet()
        (again if found.kind == PUBLISH else release).append(found)
    same([(one.kind, one.number) for one in release], [(PUBREL, got[2].number)])
    same([one.payload for one in again], [b"0", b"2", b"3", b"4", b"5", b"6", b"7", b"8"])
    same([one.number for one in again[:3]], [got[n].number for n in (1, 3, 4)], "ids of what was in flight")
    same([one.dup for one in again[:3]], [True] * 3)
    back.send(codec.ack(version, PUBCOMP, got[2].number))
    for one in again:
        back.settle(one)
    sender = lasting(version, publisher.client_id)
    kept(sender)
    sender.send(codec.publish(version, f"{topic}/m", b"8", 2, 900, dup=True))
    sender.wait(PUBREC, 900)
    sender.send(codec.ack(version, PUBREL, 900))
    sender.wait(PUBCOMP, 900)
    back.manual = False
    back.nothing(sender)
    late = Client(version)
    late.subscribe(f"{topic}/kept", qos=1)
    found = late.next()
    same((found.payload, found.retain, found.qos), (b"retained", True, 1))
    late.publish(f"{topic}/kept", b"", qos=1, retain=True)
    for name in (client.client_id, publisher.client_id):
        forget(version, name)


@rule(v5="3.1.2-8", versions=(V5,), alone=True)
def a_delayed_will_survives_a_restart(version):
    topic = fresh()
    gone = lasting(version, will=Will(topic, b"after all", 1, True, [("will_delay", 3)]))
    gone.drop()
    control("restart")
    watcher = Client(version)
    watcher.subscribe(topic, qos=1)
    same(watcher.next().payload, b"after all")
    watcher.publish(topic, b"", qos=1, retain=True)
    forget(version, gone.client_id)


@rule(versions=(V311, V5), alone=True)
def an_orderly_end_of_the_broker_publishes_wills_and_tells_5(version):
    topic = fresh()
    client = Client(version, will=Will(topic, b"shut down", 1, True))
    control("restart")
    client.ended((0x8B,))
    watcher = Client(version)
    watcher.subscribe(topic, qos=1)
    same(watcher.next().payload, b"shut down")
    watcher.publish(topic, b"", qos=1, retain=True)


