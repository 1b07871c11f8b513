"""Publishing, receiving and settling."""

import struct
from decimal import Decimal

import pika
from check import HOST, PORT, check, fresh, same, until
from pika import exceptions
from pika_helpers import PERSISTENT, Inbox, channel, connect, consumers, drain, get, publish, ready
from rawamqp.client import Connection


@check
def confirmed_publish_and_manual_ack():
    with channel(confirm=True) as ch:
        queue = fresh()
        ch.queue_declare(queue, durable=True)
        ch.basic_publish("", queue, b"hello", PERSISTENT)
        inbox = Inbox(ch, queue)
        same(inbox.wait(1), [b"hello"])
        same(inbox.items[0][0].redelivered, False, "redelivered")
        ch.basic_ack(inbox.items[0][0].delivery_tag)
        ch.basic_cancel(inbox.tag)
        same(ready(ch, queue), 0)
        ch.queue_delete(queue)


@check
def ack_multiple_settles_all_before():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        for i in range(5):
            publish(ch, queue, b"%d" % i)
        tags = [get(ch, queue)[0].delivery_tag for _ in range(5)]
        ch.basic_ack(tags[2], multiple=True)
        ch.basic_nack(0, multiple=True, requeue=True)
        until(lambda: ready(ch, queue) == 2)
        same(drain(ch, queue), [b"3", b"4"])


@check
def nack_with_requeue_comes_again_flagged_and_in_place():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        for body in (b"a", b"b", b"c"):
            publish(ch, queue, body)
        first, second = get(ch, queue)[0], get(ch, queue)[0]
        ch.basic_nack(first.delivery_tag, requeue=True)
        ch.basic_reject(second.delivery_tag, requeue=True)
        until(lambda: ready(ch, queue) == 3)
        got = [get(ch, queue, True) for _ in range(3)]
        same([(body, method.redelivered) for method, _, body in got], [(b"a", True), (b"b", True), (b"c", False)])


@check
def unacked_messages_return_when_the_connection_is_lost():
    queue = fresh()
    with channel(confirm=True) as ch:
        ch.queue_declare(queue)
        for body in (b"a", b"b"):
            publish(ch, queue, body)
        other = Connection(HOST, PORT)
        other.login()
        other.open()
        other.call("basic.consume", queue=queue)
        until(lambda: ready(ch, queue) == 0, "both delivered")
        other.drop()
        until(lambda: ready(ch, queue) == 2, "both back in the queue")
        same([(get(ch, queue, True)[0].redelivered) for _ in range(2)], [True, True])
        ch.queue_delete(queue)


@check
def prefetch_per_consumer():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.basic_qos(prefetch_count=2)
        inbox, other = Inbox(ch, queue), Inbox(ch, queue)
        for _ in range(10):
            publish(ch, queue)
        inbox.wait(2), other.wait(2)
        inbox.channel.connection.process_data_events(0.2)
        same((len(inbox.items), len(other.items)), (2, 2), "held by each")
        ch.basic_ack(inbox.items[0][0].delivery_tag)
        inbox.wait(3)
        ch.connection.process_data_events(0.2)
        same((len(inbox.items), len(other.items)), (3, 2), "after one ack")


@check
def prefetch_shared_by_the_channel():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.basic_qos(prefetch_count=3, global_qos=True)
        one, two = Inbox(ch, queue), Inbox(ch, queue)
        for _ in range(10):
            publish(ch, queue)

        def held():
            return len(one.items) + len(two.items)

        until(lambda: held() == 3, "three deliveries", lambda: ch.connection.process_data_events(0.05))
        ch.connection.process_data_events(0.2)
        same(held(), 3, "held by both")
        ch.basic_qos(prefetch_count=5, global_qos=True)
        until(lambda: held() == 5, "two more at once", lambda: ch.connection.process_data_events(0.05))
        ch.basic_qos(prefetch_count=0, global_qos=True)
        until(lambda: held() == 10, "all when lifted", lambda: ch.connection.process_data_events(0.05))


@check
def consumers_take_turns():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        inboxes = [Inbox(ch, queue) for _ in range(3)]
        for i in range(9):
            publish(ch, queue, b"%d" % i)
        for inbox in inboxes:
            inbox.wait(3)
        same(sorted(len(inbox.items) for inbox in inboxes), [3, 3, 3])


@check
def consumer_priorities():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.basic_qos(prefetch_count=2)
        low = Inbox(ch, queue)
        high = Inbox(ch, queue, arguments={"x-priority": 10})
        for i in range(3):
            publish(ch, queue, b"%d" % i)
        high.wait(2), low.wait(1)
        same((high.bodies, low.bodies), ([b"0", b"1"], [b"2"]))


@check
def single_active_consumer_hands_over():
    with channel(confirm=True) as ch:
        queue = fresh()
        ch.queue_declare(queue, arguments={"x-single-active-consumer": True})
        first = connect()
        active = Inbox(first.channel(), queue, auto_ack=True)
        waiting = Inbox(ch, queue, auto_ack=True)
        for i in range(3):
            publish(ch, queue, b"%d" % i)
        same(active.wait(3), [b"0", b"1", b"2"])
        waiting.settle()
        same(waiting.items, [], "the waiting consumer's")
        first.close()
        publish(ch, queue, b"3")
        same(waiting.wait(1), [b"3"])
        ch.queue_delete(queue)


@check
def exclusive_consumer_keeps_others_out():
    with channel() as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        Inbox(ch, queue, exclusive=True)
        second = ch.connection.channel()
        try:
            Inbox(second, queue)
            raise AssertionError("a second consumer was let in")
        except exceptions.ChannelClosedByBroker as closed:
            same(closed.reply_code, 403)


@check
def basic_get_counts_what_is_left():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        same(ch.basic_get(queue), (None, None, None))
        publish(ch, queue, b"a"), publish(ch, queue, b"b")
        method, _, body = get(ch, queue)
        same((body, method.message_count, method.exchange, method.routing_key), (b"a", 1, "", queue))


@check
def cancel_leaves_deliveries_to_be_acked():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.basic_qos(prefetch_count=1)
        inbox = Inbox(ch, queue)
        publish(ch, queue, b"a"), publish(ch, queue, b"b")
        inbox.wait(1)
        ch.basic_cancel(inbox.tag)
        ch.basic_ack(inbox.items[0][0].delivery_tag)
        same(ready(ch, queue), 1)
        same(consumers(ch, queue), 0)


@check
def consumer_is_told_when_its_queue_goes():
    with channel() as ch:
        queue = fresh()
        ch.queue_declare(queue)
        inbox, told = Inbox(ch, queue), []
        ch.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
        with channel() as other:
            other.queue_delete(queue)
        until(lambda: told == [inbox.tag], "basic.cancel", lambda: ch.connection.process_data_events(0.05))


@check
def transaction_commits_or_leaves_no_trace():
    with channel() as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        other = ch.connection.channel()
        ch.tx_select()
        publish(ch, queue, b"dropped")
        ch.tx_rollback()
        publish(ch, queue, b"kept")
        same(ready(other, queue), 0, "before the commit")
        ch.tx_commit()
        same(ready(other, queue), 1)
        method, _, body = get(ch, queue)
        same(body, b"kept")
        ch.basic_ack(method.delivery_tag)
        ch.tx_rollback()  # the acknowledgement is forgotten, the delivery still ours
        ch.basic_ack(method.delivery_tag)
        ch.tx_commit()
        ch.close()
        same(ready(other, queue), 0, "after the committed ack")


@check
def transaction_returns_come_before_commit_ok():
    with channel() as ch:
        returned = []
        ch.add_on_return_callback(lambda _ch, method, _props, body: returned.append((method.reply_code, body)))
        ch.tx_select()
        publish(ch, fresh("nowhere"), b"x", mandatory=True)
        ch.tx_commit()
        ch.connection.process_data_events(0)
        same(returned, [(312, b"x")])


@check
def recover_redelivers_everything_unacked():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        inbox = Inbox(ch, queue)
        publish(ch, queue, b"a"), publish(ch, queue, b"b")
        inbox.wait(2)
        ch.basic_recover(requeue=True)
        inbox.wait(4)
        same([(body, m.redelivered) for m, _, body in inbox.items[2:]], [(b"a", True), (b"b", True)])


@check
def direct_reply_to():
    with channel() as client, channel() as server:
        requests = server.queue_declare("", exclusive=True).method.queue
        replies = Inbox(client, "amq.rabbitmq.reply-to", auto_ack=True)
        publish(client, requests, b"ping", reply_to="amq.rabbitmq.reply-to", correlation_id="7")
        _, properties, body = get(server, requests, True)
        same(body, b"ping")
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to."), properties.reply_to
        same(server.queue_declare(properties.reply_to, passive=True).method.consumer_count, 1, "consumers of the reply address")
        publish(server, properties.reply_to, b"pong", correlation_id=properties.correlation_id)
        same(replies.wait(1), [b"pong"])
        same(replies.items[0][1].correlation_id, "7")


@check
def big_messages():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        for size in (1 << 20, 20 << 20, 131064, 131065, 0):
            data = bytes(i * 31 % 251 for i in range(4096)) * (size // 4096) + b"z" * (size % 4096)
            publish(ch, queue, data)
            _, _, body = get(ch, queue, True)
            assert body == data, f"{size} bytes came back as {len(body)} or different ones"


@check
def all_properties_come_back():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        sent = pika.BasicProperties(
            content_type="text/plain", content_encoding="utf-8", headers={"k": "v"}, delivery_mode=2, priority=7,
            correlation_id="c", reply_to="r", expiration="600000", message_id="m", timestamp=1700000000, type="t",
            user_id="guest", app_id="app", cluster_id="cluster",
        )  # fmt: skip
        ch.basic_publish("", queue, b"", sent)
        _, got, body = get(ch, queue, True)
        same((vars(got), body), (vars(sent), b""))


@check
def headers_of_all_types_pika_knows_come_back():
    from datetime import UTC, datetime

    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        headers = {
            "bool": True, "false": False, "small": 5, "int": 1 << 30, "long": -(1 << 40), "void": None,
            "decimal": Decimal("3.14"), "bytes": b"\x00\xff", "string": "grüße", "time": datetime.fromtimestamp(1700000000, UTC),
            "table": {"inner": [1, "two", {"three": None}]}, "list": [None, True, "x", [1, [2]]], "empty": {}, "none": [],
        }  # fmt: skip
        publish(ch, queue, headers=headers)
        got = get(ch, queue, True)[1].headers
        got["time"] = got["time"].replace(tzinfo=UTC)
        same(got, headers, "headers")


@check
def many_channels_on_one_connection():
    connection = connect()
    channels = [connection.channel() for _ in range(300)]
    queue = channels[0].queue_declare("", exclusive=True).method.queue
    for i, ch in enumerate(channels):
        publish(ch, queue, struct.pack(">I", i))
    until(lambda: ready(channels[0], queue) == 300)
    same(sorted(struct.unpack(">I", body)[0] for body in drain(channels[0], queue)), list(range(300)))
    connection.close()


@check
def mandatory_message_without_a_queue_is_returned():
    with channel(confirm=True) as ch:
        try:
            publish(ch, fresh("nowhere"), b"back", mandatory=True, message_id="7")
            raise AssertionError("not returned")
        except exceptions.UnroutableError as error:
            returned = error.messages[0]
            same((returned.method.reply_code, returned.method.reply_text, returned.body), (312, "NO_ROUTE", b"back"))
            same(returned.properties.message_id, "7")
