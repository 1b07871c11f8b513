"""paho, the Python client, at 3.1, 3.1.1 and 5.0, through what devices and dashboards do with it."""

import sys
import time

from device import DEADLINE, FOREVER, VERSIONS, Device, fresh, properties
from check import _checks, check, control, run, same, until  # noqa: I001
from paho.mqtt.subscribeoptions import SubscribeOptions

ALL, SINCE_311, FIVE = tuple(VERSIONS), ("3.1.1", "5"), ("5",)


def each(*versions):
    """Registers one check for each version."""

    def register(function):
        for version in versions:

            def body(version=version):
                function(version)

            body.__name__ = f"{function.__name__} [{version}]"
            check(body)
        return function

    return register


def by_qos(messages):
    """The payloads of each QoS in their order; paho hands a message of QoS 2 over only with its PUBREL."""
    found = {}
    for message in messages:
        found.setdefault(message.qos, []).append(message.payload.decode())
    return found


def away(version, topic, qos=2):
    """A client with a session and a subscription that has left."""
    device = Device(version, clean=False, expiry=FOREVER)
    device.subscribe(topic, qos)
    device.leave()
    return device


def back(version, device, **options):
    """The same client again."""
    return Device(version, device.client_id, clean=False, expiry=FOREVER, **options)


def forget(version, *devices):
    for device in devices:
        Device(version, device.client_id).leave()


@each(*ALL)
def every_qos_in_meets_every_qos_out(version):
    publisher = Device(version)
    for granted in (0, 1, 2):
        topic, subscriber = fresh(), Device(version)
        same(subscriber.subscribe(topic, granted), [granted])
        for sent in (0, 1, 2):
            publisher.publish(topic, str(sent), sent)
            got = subscriber.take()[0]
            same((got.payload.decode(), got.qos, got.retain, got.dup), (str(sent), min(sent, granted), False, False))


@each(*ALL)
def a_thousand_messages_of_each_qos_in_order(version):
    topic, subscriber, publisher = fresh(), Device(version), Device(version)
    subscriber.subscribe(topic, 2)
    for qos in (0, 1, 2):
        sent = [publisher.client.publish(topic, str(n), qos) for n in range(1000)]
        same(subscriber.payloads(1000), [str(n) for n in range(1000)])
        for one in sent:
            one.wait_for_publish(DEADLINE)


@each(*ALL)
def retained_set_replayed_by_wildcard_and_cleared(version):
    root, device = fresh(), Device(version)
    for n in range(20):
        device.publish(f"{root}/{n}/state", f"state {n}", n % 3, retain=True)
    late = Device(version)
    late.subscribe(f"{root}/+/state", 2)
    got = sorted(late.take(20), key=lambda message: int(message.topic.split("/")[1]))
    same([(m.payload.decode(), m.qos, m.retain) for m in got], [(f"state {n}", n % 3, True) for n in range(20)])
    for n in range(20):
        device.publish(f"{root}/{n}/state", "", 1, retain=True)
    late.take(20)
    later = Device(version)
    later.subscribe(f"{root}/#")
    later.nothing()


@each(*FIVE)
def retain_handling_and_retain_as_published(version):
    topic, device = fresh(), Device(version)
    device.publish(topic, "kept", retain=True)
    device.subscribe(topic, options=SubscribeOptions(1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND))
    device.nothing()
    device.subscribe(topic, options=SubscribeOptions(1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB))
    device.nothing()
    device.subscribe(topic, options=SubscribeOptions(1, retainAsPublished=True))
    same(device.take()[0].retain, True)
    device.publish(topic, "live", retain=True)
    same(device.take()[0].retain, True)
    device.publish(topic, "live")
    same(device.take()[0].retain, False)
    device.publish(topic, "", retain=True)


@each(*ALL)
def a_will_after_a_crash_and_none_after_goodbye(version):
    topic, watcher = fresh(), Device(version)
    watcher.subscribe(topic, 2)
    for qos in (0, 1, 2):
        Device(version, will={"topic": topic, "payload": f"gone {qos}", "qos": qos}).crash()
        got = watcher.take()[0]
        same((got.payload.decode(), got.qos), (f"gone {qos}", qos))
    Device(version, will={"topic": topic, "payload": "polite"}).leave()
    watcher.nothing()


@each(*ALL)
def a_retained_will_tells_who_comes_later(version):
    topic = fresh()
    device = Device(version, will={"topic": topic, "payload": "offline", "qos": 1, "retain": True})
    device.publish(topic, "online", retain=True)
    watcher = Device(version)
    watcher.subscribe(topic)
    same(watcher.payloads(), ["online"])
    device.crash()
    same(watcher.payloads(), ["offline"])
    late = Device(version)
    late.subscribe(topic)
    got = late.take()[0]
    same((got.payload, got.retain), (b"offline", True))
    late.publish(topic, "", retain=True)


@each(*ALL)
def a_will_at_takeover(version):
    topic, watcher = fresh(), Device(version)
    watcher.subscribe(topic)
    old = Device(version, will={"topic": topic, "payload": "taken over"})
    new = Device(version, old.client_id)
    until(lambda: old.left, "the end of the old connection")
    if version == "5":
        same(old.left, "Session taken over")
    same(watcher.payloads(), ["taken over"])
    new.leave()


@each(*FIVE)
def a_will_with_properties_and_disconnect_with_will(version):
    topic, watcher = fresh(), Device(version)
    watcher.subscribe(topic)
    more = properties("WILLMESSAGE", ContentType="text/plain", UserProperty=[("b", "1"), ("a", "2")])
    Device(version, will={"topic": topic, "payload": "asked", "properties": more}).leave(reason=4)
    got = watcher.take()[0]
    same((got.payload, got.properties.ContentType, got.properties.UserProperty), (b"asked", "text/plain", [("b", "1"), ("a", "2")]))


@each(*FIVE)
def a_will_with_delay_is_late_or_cancelled(version):
    topic, watcher = fresh(), Device(version)
    watcher.subscribe(topic)
    will = {"topic": topic, "payload": "late", "properties": properties("WILLMESSAGE", WillDelayInterval=2)}
    begun = time.monotonic()
    late = Device(version, clean=False, expiry=60, will=will)
    late.crash()
    saved = Device(version, clean=False, expiry=60, will={**will, "payload": "saved"})
    saved.crash()
    again = back(version, saved)
    same(watcher.payloads(), ["late"])
    assert time.monotonic() - begun >= 1.9, "the will was early"
    time.sleep(0.5)
    watcher.nothing()
    again.leave()
    forget(version, late, saved)


@each(*ALL)
def a_session_keeps_what_comes_while_the_client_is_away(version):
    topic, publisher = fresh(), Device(version)
    device = away(version, topic)
    for n in range(100):
        publisher.publish(topic, str(n), 1 + n % 2)
    again = back(version, device)
    if version != "3.1":
        same(again.present, True)
    same(by_qos(again.take(100)), {1 + k: [str(n) for n in range(k, 100, 2)] for k in range(2)})
    again.leave()
    forget(version, device)


@each(*SINCE_311)
def session_present_clean_start_and_expiry(version):
    device = away(version, fresh())
    same(device.present, False)
    again = back(version, device)
    same(again.present, True)
    again.leave()
    clean = Device(version, device.client_id)
    same(clean.present, False)
    clean.leave()
    once_more = back(version, device)
    same(once_more.present, False)
    once_more.leave()
    if version == "5":
        short = Device(version, device.client_id, clean=False, expiry=FOREVER)
        short.leave(SessionExpiryInterval=1)
        time.sleep(2.5)
        same(back(version, device).present, False)
    forget(version, device)


@each(*ALL)
def a_takeover_resumes_the_session(version):
    topic, publisher = fresh(), Device(version)
    old = Device(version, clean=False, expiry=FOREVER)
    old.subscribe(topic)
    new = back(version, old)
    until(lambda: old.left, "the end of the old connection")
    if version != "3.1":
        same(new.present, True)
    publisher.publish(topic, "to the new one")
    same(new.payloads(), ["to the new one"])
    new.leave()
    forget(version, old)


@each(*SINCE_311)
def shared_subscriptions_share(version):
    topic, members, publisher = fresh(), [Device(version) for _ in range(3)], Device(version)
    for member in members:
        member.subscribe(f"$share/crew/{topic}")
    for n in range(90):
        publisher.publish(topic, str(n))
    until(lambda: sum(len(member.messages) for member in members) == 90, "all ninety")
    counts = [len(member.messages) for member in members]
    assert min(counts) >= 20, counts
    same(sorted(int(m.payload) for member in members for m in member.messages), list(range(90)))


@each(*FIVE)
def no_local_and_subscription_identifiers(version):
    topic, device, other = fresh(), Device(version), Device(version)
    device.subscribe(topic, options=SubscribeOptions(1, noLocal=True), SubscriptionIdentifier=42)
    device.publish(topic, "mine")
    other.publish(topic, "other")
    got = device.take()[0]
    same((got.payload, got.properties.SubscriptionIdentifier), (b"other", [42]))
    device.nothing()


@each(*FIVE)
def topic_aliases_to_the_server(version):
    # The library does not resolve aliases of the server, so it must not be announced that it takes any.
    topic, device = fresh(), Device(version)
    most = getattr(device.connack[2], "TopicAliasMaximum", 0)
    device.subscribe(topic)
    if most:
        device.publish(topic, "named", TopicAlias=1)
        device.publish("", "aliased", TopicAlias=1)
        same([(m.topic, m.payload) for m in device.take(2)], [(topic, b"named"), (topic, b"aliased")])


@each(*FIVE)
def receive_maximum_and_maximum_packet_size(version):
    topic, device, publisher = fresh(), Device(version, ReceiveMaximum=3, MaximumPacketSize=300), Device(version)
    device.subscribe(topic, 2)
    for n in range(30):
        publisher.publish(topic, "x" * 1000 if n == 10 else str(n), n % 3)
    same(by_qos(device.take(29)), {k: [str(n) for n in range(k, 30, 3) if n != 10] for k in range(3)})


@each(*FIVE)
def message_expiry(version):
    topic, publisher = fresh(), Device(version)
    device = away(version, topic)
    publisher.publish(topic, "short", MessageExpiryInterval=1)
    publisher.publish(topic, "long", MessageExpiryInterval=100)
    time.sleep(2)
    again = back(version, device)
    got = again.take()[0]
    same(got.payload, b"long")
    assert 0 < got.properties.MessageExpiryInterval <= 99
    again.nothing()
    again.leave()
    forget(version, device)


@each(*FIVE)
def request_and_response_with_properties_in_order(version):
    asker, answerer, requests, replies = Device(version), Device(version), fresh(), fresh()
    asker.subscribe(replies)
    answerer.subscribe(requests)
    pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("é", "")]
    asker.publish(requests, "how warm?", ResponseTopic=replies, CorrelationData=b"\0\xff7", UserProperty=pairs, PayloadFormatIndicator=1)
    got = answerer.take()[0]
    same(got.properties.UserProperty, pairs)
    answerer.publish(got.properties.ResponseTopic, "21", CorrelationData=got.properties.CorrelationData, ContentType="text/plain")
    got = asker.take()[0]
    same((got.payload, got.properties.CorrelationData, got.properties.ContentType), (b"21", b"\0\xff7", "text/plain"))


@each(*ALL)
def sys_topics(version):
    device = Device(version)
    device.subscribe("$SYS/broker/#")
    until(lambda: {"$SYS/broker/version", "$SYS/broker/uptime"} <= {m.topic for m in device.messages}, "version and uptime")


@each(*ALL)
def right_and_wrong_passwords_and_none(version):
    Device(version, user=("guest", "guest")).leave()
    Device(version).leave()
    for user in (("guest", "wrong"), ("nobody", "x")):
        refused = Device(version, user=user, connect=False)
        code = until(lambda: refused.connack or refused.left, "a refusal")
        assert "Bad user name or password" in str(code) or "Not authorized" in str(code), code
        refused.client.loop_stop()


@each(*ALL)
def keep_alive_holds_an_idle_connection(version):
    device, topic = Device(version, keepalive=1), fresh()
    device.subscribe(topic)
    time.sleep(3.5)
    same(device.left, None)
    device.publish(topic, "still here")
    same(device.payloads(), ["still here"])


@each(*ALL)
def unsubscribe_ends_the_flow(version):
    topic, device = fresh(), Device(version)
    device.subscribe(topic)
    device.publish(topic, "one")
    same(device.payloads(), ["one"])
    device.unsubscribe(topic)
    device.publish(topic, "two")
    device.nothing()


@each(*ALL)
def overlapping_subscriptions_deliver_at_the_highest_qos(version):
    root, device, publisher = fresh(), Device(version), Device(version)
    device.subscribe([(f"{root}/#", 0), (f"{root}/+", 2), (f"{root}/a", 1)])
    publisher.publish(f"{root}/a", "x", 2)
    mark = fresh()
    device.subscribe(mark)
    publisher.publish(mark)
    until(lambda: device.messages and device.messages[-1].topic == mark, "the mark")
    same(max(message.qos for message in device.messages[:-1]), 2)


@each(*ALL)
def a_payload_of_eight_megabytes(version):
    topic, device = fresh(), Device(version)
    device.subscribe(topic, 2)
    payload = bytes(range(256)) * 32768
    for qos in (0, 1, 2):
        device.publish(topic, payload, qos)
        assert device.take()[0].payload == payload


@each(*ALL)
def topics_of_any_text(version):
    root, device = fresh(), Device(version)
    device.subscribe(f"{root}/#")
    topics = [f"{root}/{name}" for name in ("Küche/Lüftung", "温度/七", "a.b/c", "a/b.c", "🚀", "", "/", " x ")]
    for topic in topics:
        device.publish(topic, topic)
    got = device.take(len(topics))
    same([m.topic for m in got], topics)
    same([m.payload.decode() for m in got], topics)


@each(*ALL)
def sessions_and_retained_messages_survive_a_restart(version):
    topic, kept, publisher = fresh(), fresh(), Device(version)
    device = away(version, topic)
    for n in range(20):
        publisher.publish(topic, str(n), 1 + n % 2)
    publisher.publish(kept, "kept", 1, retain=True)
    control("restart")
    again = back(version, device)
    if version != "3.1":
        same(again.present, True)
    same(by_qos(again.take(20)), {1 + k: [str(n) for n in range(k, 20, 2)] for k in range(2)})
    again.subscribe(kept)
    got = again.take()[0]
    same((got.payload, got.retain), (b"kept", True))
    again.publish(kept, "", retain=True)
    again.take()
    again.leave()
    forget(version, device)


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    assert any(wanted in function.__name__.replace("_", " ") for function in _checks), wanted
    run()
