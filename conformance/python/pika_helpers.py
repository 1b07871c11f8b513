"""Short ways to say the usual things with pika."""

from contextlib import contextmanager

import pika
from check import HOST, PORT, until

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def connect(user="guest", password="guest", vhost="/", **options):
    """A blocking connection."""
    parameters = pika.ConnectionParameters(
        HOST, PORT, vhost, pika.PlainCredentials(user, password), **{"heartbeat": 0, "socket_timeout": 20, **options}
    )
    return pika.BlockingConnection(parameters)


@contextmanager
def channel(confirm=False, **options):
    """A channel on a connection of its own."""
    connection = connect(**options)
    try:
        opened = connection.channel()
        if confirm:
            opened.confirm_delivery()
        yield opened
    finally:
        if connection.is_open:
            connection.close()


def get(ch, queue, auto_ack=False):
    """basic.get until a message is there: (method, properties, body)."""

    def one():
        got = ch.basic_get(queue, auto_ack)
        return got if got[0] else None

    return until(one, f"a message in {queue}")


def drain(ch, queue):
    """Bodies of all that is ready now, acknowledged."""
    bodies = []
    while True:
        method, _, body = ch.basic_get(queue, True)
        if method is None:
            return bodies
        bodies.append(body)


def ready(ch, queue):
    """How many messages are ready."""
    return ch.queue_declare(queue, passive=True).method.message_count


def consumers(ch, queue):
    """How many consumers the queue has."""
    return ch.queue_declare(queue, passive=True).method.consumer_count


class Inbox:
    """A consumer that keeps what it receives."""

    def __init__(self, ch, queue, auto_ack=False, **options):
        self.channel, self.items = ch, []
        self.tag = ch.basic_consume(queue, self._take, auto_ack=auto_ack, **options)

    def _take(self, _channel, method, properties, body):
        self.items.append((method, properties, body))

    @property
    def bodies(self):
        return [body for _, _, body in self.items]

    def wait(self, count):
        """Waits for `count` messages in total and returns their bodies."""
        pump = self.channel.connection.process_data_events
        until(lambda: len(self.items) >= count, f"{count} deliveries (has {len(self.items)})", lambda: pump(0.05))
        return self.bodies

    def settle(self):
        """Lets whatever is still coming arrive: a full round trip on the channel."""
        self.channel.basic_qos(prefetch_count=0)
        self.channel.connection.process_data_events(0.1)


def publish(ch, routing_key, body=b"m", exchange="", mandatory=False, **properties):
    """basic.publish; on a confirming channel it returns when the broker has confirmed."""
    ch.basic_publish(exchange, routing_key, body, pika.BasicProperties(**properties), mandatory=mandatory)
