"""kombu over py-amqp: what Celery, Airflow and others stand on."""

import socket

from amqp.exceptions import NotFound, PreconditionFailed
from check import URL, check, control, fresh, run, same, until
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.pools import connections, producers
from kombu.simple import SimpleQueue


def connect(**options):
    """A connection that confirms what it publishes."""
    return Connection(URL, transport_options={"confirm_publish": True}, **options)


def drain(connection, condition, what):
    """Handles what arrives until the condition holds."""

    def step():
        try:
            connection.drain_events(timeout=0.1)
        except socket.timeout:
            pass

    until(condition, what, step)


@check
def simple_queue_round_trip():
    with connect() as connection:
        queue = connection.SimpleQueue(fresh(), queue_opts={"auto_delete": True})
        queue.put({"hello": [1, None, "x"]}, serializer="json")
        message = queue.get(timeout=10)
        same(message.payload, {"hello": [1, None, "x"]})
        message.ack()
        same(queue.qsize(), 0)
        queue.close()
        queue.queue(connection.channel()).delete()


@check
def every_exchange_type_routes():
    with connect() as connection:
        channel = connection.channel()
        for kind, binding, key in (("direct", "k", "k"), ("fanout", "", "any"), ("topic", "a.#", "a.b")):
            exchange = Exchange(fresh("x"), kind, durable=False, auto_delete=True)
            queue = Queue(fresh(), exchange, binding, durable=False, exclusive=True)(channel)
            queue.declare()
            Producer(channel, exchange).publish({"kind": kind}, routing_key=key)
            same(queue.get(no_ack=True).payload, {"kind": kind})


@check
def headers_with_void_and_nested_values_come_back():
    with connect() as connection:
        channel = connection.channel()
        queue = Queue(fresh(), exclusive=True, durable=False)(channel)
        queue.declare()
        headers = {"void": None, "list": [None, 1, "x", {"a": None}], "double": 1.25, "table": {"k": [True, False]}, "big": 1 << 50}
        Producer(channel).publish("x", routing_key=queue.name, headers=headers, priority=3, expiration=60)
        message = queue.get(no_ack=True)
        same(message.headers, headers)
        same((message.properties["priority"], message.properties["expiration"]), (3, "60000"))


@check
def compressed_and_binary_bodies():
    with connect() as connection:
        channel = connection.channel()
        queue = Queue(fresh(), exclusive=True, durable=False)(channel)
        queue.declare()
        Producer(channel).publish({"x": "y" * 5000}, routing_key=queue.name, compression="zlib")
        same(queue.get(no_ack=True).payload, {"x": "y" * 5000})
        Producer(channel).publish(b"\x00\xff", routing_key=queue.name, content_type="application/data", content_encoding="binary")
        same(queue.get(no_ack=True).payload, b"\x00\xff")


@check
def shared_prefetch_changes_at_run_time():
    with connect() as connection:
        channel = connection.channel()
        queue = Queue(fresh(), exclusive=True, durable=False)
        got = []
        with Consumer(channel, [queue], on_message=got.append, prefetch_count=None) as consumer:
            consumer.qos(prefetch_count=2, apply_global=True)
            producer = Producer(connection.channel())
            for i in range(8):
                producer.publish(i, routing_key=queue.name)
            drain(connection, lambda: len(got) == 2, "two messages")
            # Celery's autoscaler and its ETA tasks change the window of a consumer that is running.
            consumer.qos(prefetch_count=5, apply_global=True)
            drain(connection, lambda: len(got) == 5, "three more")
            consumer.qos(prefetch_count=1, apply_global=True)
            for message in got[:4]:
                message.ack()
            consumer.qos(prefetch_count=2, apply_global=True)
            drain(connection, lambda: len(got) == 6, "one more")


@check
def reject_requeue_and_recover():
    with connect() as connection:
        channel = connection.channel()
        queue = Queue(fresh(), exclusive=True, durable=False)(channel)
        queue.declare()
        Producer(channel).publish("x", routing_key=queue.name)
        queue.get().requeue()
        message = until(queue.get, "the requeued message")
        same(message.delivery_info["redelivered"], True)
        channel.basic_recover(requeue=True)
        until(queue.get, "the recovered message").reject()
        same(queue.get(), None)


@check
def errors_name_their_cause():
    with connect() as connection:
        try:
            connection.channel().queue_declare("missing", passive=True)
            raise AssertionError("found")
        except NotFound as error:
            same(error.reply_text, "NOT_FOUND - no queue 'missing' in vhost '/'")
        name = fresh()
        connection.channel().queue_declare(name, durable=False, exclusive=True, auto_delete=False)
        try:
            connection.channel().queue_declare(name, durable=False, exclusive=True, auto_delete=True)
            raise AssertionError("accepted")
        except PreconditionFailed as error:
            same(error.code, 406)


@check
def broadcast_reaches_all():
    with connect() as connection:
        exchange = Exchange(fresh("x"), "fanout", durable=False, auto_delete=True)
        got, channel = [], connection.channel()
        queues = [Queue(fresh(), exchange, exclusive=True, durable=False) for _ in range(4)]
        with Consumer(channel, queues, on_message=lambda m: (got.append(m.delivery_info["consumer_tag"]), m.ack())):
            Producer(connection.channel(), exchange).publish("all")
            drain(connection, lambda: len(set(got)) == 4, "four copies")


@check
def pools_hand_out_working_connections():
    connection = connect()
    queue = SimpleQueue(connection, fresh(), queue_opts={"durable": False})
    for i in range(5):
        with producers[connection].acquire(block=True) as producer:
            producer.publish(i, routing_key=queue.queue.name)
        with connections[connection].acquire(block=True) as pooled:
            assert pooled.connected or pooled.connect()
    same([queue.get(timeout=10).payload for _ in range(5)], list(range(5)))
    queue.close()
    queue.queue(connection.channel()).delete()
    connection.close()


@check
def heartbeat_checks_pass():
    import time

    with connect(heartbeat=2) as connection:
        connection.connect()
        for _ in range(6):
            time.sleep(0.5)
            connection.heartbeat_check(rate=2)
            try:
                connection.drain_events(timeout=0.1)
            except socket.timeout:
                pass
        assert connection.connected


@check
def ensure_publishes_over_a_restart():
    with connect() as connection:
        name = fresh()
        queue = Queue(name, durable=True)(connection.channel())
        queue.declare()
        producer = connection.Producer()
        producer.publish("before", routing_key=name, delivery_mode=2)
        control("kill")
        policy = {"max_retries": 50, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.5}
        producer.publish("after", routing_key=name, delivery_mode=2, retry=True, retry_policy=policy)
        with connect() as other:
            bound = queue(other.channel())
            same([until(lambda: bound.get(no_ack=True), "a message").payload for _ in range(2)], ["before", "after"])
            bound.delete()


if __name__ == "__main__":
    run()
