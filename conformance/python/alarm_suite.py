"""Alarms, as pika sees them. The broker is started with little memory for messages (see harness/suites.py)."""

import os
import urllib.request

import pika
from check import check, fresh, run, same, until
from pika_helpers import channel, connect, drain

BODY = bytes(64 << 10)
# More than the broker may hold before it must stop us.
MOST = 20_000
TRANSIENT = pika.BasicProperties(delivery_mode=1)


class Publisher:
    """A connection that remembers what it is told about alarms."""

    def __init__(self):
        self.connection, self.told = connect(), []
        self.connection.add_on_connection_blocked_callback(lambda _, frame: self.told.append(frame.method.reason))
        self.connection.add_on_connection_unblocked_callback(lambda *_: self.told.append("unblocked"))
        self.channel = self.connection.channel()

    def fill(self, queue):
        """Publishes until it is told to stop."""
        for _ in range(MOST):
            self.channel.basic_publish("", queue, BODY, TRANSIENT)
            self.connection.process_data_events(0)
            if self.told:
                return
        raise AssertionError(f"{MOST} messages of {len(BODY)} bytes were taken")

    def hear(self):
        self.connection.process_data_events(0.05)


def gauge(name):
    """A figure of the broker's metrics."""
    with urllib.request.urlopen(f"http://{os.environ['BROKER_HTTP']}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


@check
def publishers_are_blocked_while_memory_is_low_and_consumers_are_not():
    queue = fresh()
    with channel() as consumer:
        consumer.queue_declare(queue)
        publisher = Publisher()
        publisher.fill(queue)
        same(publisher.told, ["low on memory"])
        same(gauge("portolan_connections_blocked"), 1)

        method, _, body = consumer.basic_get(queue, auto_ack=True)
        same((method.exchange, body), ("", BODY), "what a consumer gets meanwhile")
        consumer.queue_purge(queue)
        until(lambda: len(publisher.told) > 1, "connection.unblocked", publisher.hear)
        same(publisher.told, ["low on memory", "unblocked"])
        same(gauge("portolan_connections_blocked"), 0)

        publisher.channel.confirm_delivery()
        publisher.channel.basic_publish("", queue, b"after", TRANSIENT)
        same(drain(consumer, queue)[-1], b"after")
        publisher.connection.close()
        consumer.queue_delete(queue)


if __name__ == "__main__":
    run()
