"""Heartbeats, restarts and sudden death."""

import pika
from check import check, control, fresh, same, until
from pika import exceptions
from pika_helpers import PERSISTENT, channel, connect, drain, get, publish, ready


@check
def heartbeats_keep_an_idle_connection():
    connection = connect(heartbeat=1)
    ch = connection.channel()
    connection.process_data_events(4)
    same(ch.queue_declare("", exclusive=True).method.message_count, 0)
    connection.close()


@check
def a_silent_peer_is_dropped():
    connection = connect(heartbeat=1)
    impl = connection._impl
    impl._heartbeat_checker.stop()  # now it neither sends heartbeats nor looks for them

    def closed():
        try:
            connection.process_data_events(0.2)
        except exceptions.AMQPConnectionError:
            return True
        return connection.is_closed

    until(closed, "the broker to hang up", lambda: None)


def take_down(ch, how):
    """Lets the broker be restarted or killed, and waits until this client knows that its connection is gone."""
    control(how)

    def lost():
        try:
            ch.connection.process_data_events(0.1)
        except exceptions.AMQPConnectionError:
            return True

    until(lost, "the loss of the connection", lambda: None)


def durable_topology(ch):
    """(exchange, queue, transient queue), bound where both ends are durable."""
    exchange, queue, transient = fresh("x"), fresh(), fresh("t")
    ch.exchange_declare(exchange, "topic", durable=True)
    ch.queue_declare(queue, durable=True, arguments={"x-max-priority": 3})
    ch.queue_bind(queue, exchange, "a.#")
    ch.queue_declare(transient)
    return exchange, queue, transient


def after_restart(how):
    """What must be there, and what must not, after the broker went down in the given way."""
    with channel(confirm=True) as ch:
        exchange, queue, transient = durable_topology(ch)
        for i in range(50):
            ch.basic_publish(exchange, "a.b", b"%d" % i, PERSISTENT)
        publish(ch, queue, b"lost", delivery_mode=1)
        ch.basic_ack(get(ch, queue)[0].delivery_tag)
        ready(ch, queue)  # a round trip, so that the ack has been read
        take_down(ch, how)
    with channel(confirm=True) as ch:
        ch.queue_declare(queue, durable=True, arguments={"x-max-priority": 3})
        same(drain(ch, queue)[-49:], [b"%d" % i for i in range(1, 50)], "persistent messages")
        publish(ch, "a.c", b"routed", exchange, mandatory=True)
        same(drain(ch, queue), [b"routed"], "after the binding was used again")
        ch.queue_delete(queue), ch.exchange_delete(exchange)
        try:
            ch.queue_declare(transient, passive=True)
            raise AssertionError("the transient queue is still there")
        except exceptions.ChannelClosedByBroker as closed:
            same(closed.reply_code, 404)


@check
def durable_things_survive_a_restart():
    after_restart("restart")


@check
def confirmed_messages_survive_kill_9():
    after_restart("kill")


@check
def a_restarting_broker_says_goodbye():
    connection = connect()
    connection.channel()
    control("restart")
    try:
        connection.process_data_events(5)
        raise AssertionError("the connection is still open")
    except exceptions.ConnectionClosedByBroker as closed:
        same(closed.reply_code, 320)


@check
def unacked_messages_come_again_after_a_restart():
    with channel(confirm=True) as ch:
        queue = fresh()
        ch.queue_declare(queue, durable=True)
        for body in (b"a", b"b"):
            ch.basic_publish("", queue, body, PERSISTENT)
        get(ch, queue)
        take_down(ch, "restart")
    with channel() as ch:
        same([(body, method.redelivered) for method, _, body in (get(ch, queue, True), get(ch, queue, True))],
             [(b"a", True), (b"b", False)])  # fmt: skip
        ch.queue_delete(queue)


@check
def large_persistent_messages_survive_kill_9():
    with channel(confirm=True) as ch:
        queue, data = fresh(), bytes(range(256)) * 4096 * 8
        ch.queue_declare(queue, durable=True)
        ch.basic_publish("", queue, data, pika.BasicProperties(delivery_mode=2, headers={"k": [1, None]}))
        take_down(ch, "kill")
    with channel() as ch:
        _, properties, body = get(ch, queue, True)
        assert body == data, "the body changed"
        same(properties.headers, {"k": [1, None]})
        ch.queue_delete(queue)
