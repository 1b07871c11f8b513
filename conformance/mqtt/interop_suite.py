"""MQTT and AMQP 0-9-1 on one broker: what a device publishes a queue receives, and the other way round (paho and pika)."""

import uuid

import pika
from device import Device, fresh  # noqa: I001  (finds the helpers of the Python suites)
from check import check, run, same
from pika_helpers import Inbox, channel, get, publish, ready

VERSIONS = ("3.1.1", "5")
V5, V311 = "5", "3.1.1"


def bound(ch, *keys):
    """A queue bound to amq.topic."""
    queue = ch.queue_declare("", exclusive=True).method.queue
    for key in keys:
        ch.queue_bind(queue, "amq.topic", key)
    return queue


@check
def a_device_publishes_into_a_queue_bound_with_wildcards():
    root = fresh("plant")
    with channel() as ch:
        queue = bound(ch, f"{root}.*.temp")
        for version in ("3.1", *VERSIONS):
            device = Device(version)
            device.publish(f"{root}/7/temp", f"21 at {version}")
            device.publish(f"{root}/7/pressure", "not this one")
            device.publish(f"{root}/7/8/temp", "nor this one")
            method, _, body = get(ch, queue, True)
            same((method.exchange, method.routing_key, body.decode()), ("amq.topic", f"{root}.7.temp", f"21 at {version}"))
        same(ready(ch, queue), 0)


@check
def the_properties_of_a_device_become_those_of_amqp():
    root = fresh("plant")
    with channel() as ch:
        queue = bound(ch, f"{root}.#")
        Device(V5).publish(
            f"{root}/7/temp", "21", ContentType="text/plain", CorrelationData=b"c-77", ResponseTopic=f"{root}/re/ply", MessageExpiryInterval=60,
            UserProperty=[("site", "Küche"), ("unit", "C"), ("site", "again")],
        )  # fmt: skip
        _, properties, _ = get(ch, queue, True)
        same(properties.content_type, "text/plain")
        same(properties.correlation_id, "c-77")
        same(properties.headers["x-reply-to-topic"], f"{root}.re.ply")
        same((properties.headers["site"], properties.headers["unit"]), ("Küche", "C"))
        assert 0 < int(properties.expiration) <= 60_000, properties.expiration


@check
def correlation_data_that_is_no_text_comes_as_a_header():
    root = fresh("plant")
    with channel() as ch:
        queue = bound(ch, root)
        for data in (b"\0\xff\1", b"x" * 300):
            Device(V5).publish(root, "x", CorrelationData=data)
            _, properties, _ = get(ch, queue, True)
            got = (properties.headers or {}).get("x-correlation-id")
            same((bytes(got) if not isinstance(got, str) else got.encode()), data)


@check
def qos_and_delivery_mode_mean_the_same():
    topic = fresh("mode")
    with channel(confirm=True) as ch:
        queue = bound(ch, topic)
        for version in VERSIONS:
            device = Device(version)
            for qos, mode in ((0, 1), (1, 2), (2, 2)):
                device.publish(topic, "x", qos)
                _, properties, _ = get(ch, queue, True)
                same(properties.delivery_mode, mode, f"QoS {qos}")
            device.subscribe(topic, 2)
            for mode, qos in ((1, 0), (2, 1), (None, 0)):
                publish(ch, topic, b"x", "amq.topic", delivery_mode=mode)
                same(device.take()[0].qos, qos, f"delivery mode {mode}")
            device.leave()
            ch.queue_purge(queue)


@check
def amqp_publishes_to_devices_of_every_version():
    topic = fresh("plant")
    devices = [Device(version) for version in ("3.1", *VERSIONS)]
    for device in devices:
        device.subscribe(f"{topic}/+/set", 1)
    with channel(confirm=True) as ch:
        publish(ch, f"{topic}.7.set", "22 °C".encode(), "amq.topic", delivery_mode=2)
    for device in devices:
        got = device.take()[0]
        same((got.topic, got.payload.decode(), got.qos, got.retain), (f"{topic}/7/set", "22 °C", 1, False))


@check
def the_properties_of_amqp_become_those_of_a_device():
    topic = fresh("plant")
    device = Device(V5)
    device.subscribe(topic)
    headers = {"text": "v", "number": 7, "yes": True, "x-reply-to-topic": "re.ply", "table": {"a": 1}, "list": [1]}
    with channel(confirm=True) as ch:
        publish(ch, topic, b"x", "amq.topic", content_type="text/plain", correlation_id="c-1", headers=headers, expiration="60000", delivery_mode=2)
    got = device.take()[0].properties
    same((got.ContentType, got.CorrelationData, got.ResponseTopic), ("text/plain", b"c-1", "re/ply"))
    pairs = dict(got.UserProperty)
    same((pairs["text"], pairs["number"], pairs["yes"]), ("v", "7", "true"))
    assert 0 < got.MessageExpiryInterval <= 60, got.MessageExpiryInterval


@check
def dots_and_stars_inside_levels_come_through_reversibly():
    root = fresh("dots")
    with channel(confirm=True) as ch:
        queue = bound(ch, f"{root}.#")
        device = Device(V5)
        device.subscribe(f"{root}/#")
        for name in ("a.b/c", "a/b.c", "v1.2.3/x", "*", "a*b/c", "", "/", "Küche/七"):
            topic = f"{root}/{name}"
            device.publish(topic, "there")
            same(device.take()[0].topic, topic)
            method, _, _ = get(ch, queue, True)
            publish(ch, method.routing_key, b"and back", "amq.topic")
            same(device.take()[0].topic, topic)
            ch.queue_purge(queue)


@check
def amqp_asks_and_a_device_answers():
    commands, replies = fresh("cmd"), fresh("re")
    device = Device(V5)
    device.subscribe(f"{commands}/7")
    with channel(confirm=True) as ch:
        queue = bound(ch, replies)
        correlation = str(uuid.uuid4())
        publish(ch, f"{commands}.7", b"open", "amq.topic", correlation_id=correlation, headers={"x-reply-to-topic": replies}, delivery_mode=2)
        got = device.take()[0]
        device.publish(got.properties.ResponseTopic, "opened", CorrelationData=got.properties.CorrelationData)
        _, properties, body = get(ch, queue, True)
        same((body, properties.correlation_id), (b"opened", correlation))


@check
def a_device_asks_and_amqp_answers():
    questions, replies = fresh("ask"), fresh("re")
    device = Device(V5)
    device.subscribe(f"{replies}/7")
    with channel(confirm=True) as ch:
        queue = bound(ch, questions)
        device.publish(questions, "what time?", ResponseTopic=f"{replies}/7", CorrelationData=b"q-1")
        _, properties, _ = get(ch, queue, True)
        publish(ch, properties.headers["x-reply-to-topic"], b"noon", "amq.topic", correlation_id=properties.correlation_id, delivery_mode=2)
    got = device.take()[0]
    same((got.topic, got.payload, got.properties.CorrelationData), (f"{replies}/7", b"noon", b"q-1"))


@check
def amqp_retains_by_a_header():
    topic = fresh("kept")
    with channel(confirm=True) as ch:
        publish(ch, f"{topic}.state", b"on", "amq.topic", headers={"x-mqtt-retain": True}, delivery_mode=2)
        for version in VERSIONS:
            device = Device(version)
            device.subscribe(f"{topic}/+")
            got = device.take()[0]
            same((got.topic, got.payload, got.retain), (f"{topic}/state", b"on", True))
        publish(ch, f"{topic}.state", b"", "amq.topic", headers={"x-mqtt-retain": True}, delivery_mode=2)
    late = Device(V5)
    late.subscribe(f"{topic}/#")
    late.nothing()


@check
def amqp_publishes_to_a_session_that_is_away():
    topic = fresh("away")
    for version in VERSIONS:
        device = Device(version, clean=False, expiry=600)
        device.subscribe(topic, 2)
        device.leave()
        with channel(confirm=True) as ch:
            for n in range(20):
                publish(ch, topic, str(n).encode(), "amq.topic", delivery_mode=2)
        back = Device(version, device.client_id, clean=False, expiry=600)
        same(back.payloads(20), [str(n) for n in range(20)])
        back.leave()
        Device(version, device.client_id).leave()


@check
def a_will_reaches_a_queue():
    topic = fresh("gone")
    with channel() as ch:
        queue = bound(ch, topic)
        Device(V5, will={"topic": topic, "payload": "offline", "qos": 1}).crash()
        method, properties, body = get(ch, queue, True)
        same((method.routing_key, properties.delivery_mode, body), (topic, 2, b"offline"))


@check
def ten_thousand_readings_reach_a_consumer_in_order():
    topic = fresh("flow")
    with channel() as ch:
        inbox = Inbox(ch, bound(ch, f"{topic}.*"), auto_ack=True)
        devices = [Device(version) for version in VERSIONS]
        for n in range(5000):
            for number, device in enumerate(devices):
                device.client.publish(f"{topic}/{number}", str(n), 1)
        inbox.wait(10_000)
        for number in range(2):
            got = [int(body) for method, _, body in inbox.items if method.routing_key.endswith(f".{number}")]
            same(got, list(range(5000)), f"order of device {number}")


@check
def a_message_to_a_session_is_routed_until_the_session_ends():
    topic = fresh("queue")
    device = Device(V5, clean=False, expiry=600)
    device.subscribe(topic, 1)
    device.leave()
    with channel(confirm=True) as ch:
        publish(ch, topic, b"x", "amq.topic", delivery_mode=2, mandatory=True)  # routed: not returned
    Device(V5, device.client_id).leave()
    with channel(confirm=True) as ch:
        try:
            publish(ch, topic, b"x", "amq.topic", delivery_mode=2, mandatory=True)
        except pika.exceptions.UnroutableError:
            return
    raise AssertionError("a session that was ended still takes messages")


if __name__ == "__main__":
    run()
