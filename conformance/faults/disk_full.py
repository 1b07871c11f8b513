"""A disk that is full: publishers wait, consumers go on, nothing confirmed is lost, and it ends by itself.

And one that takes no write any more: the broker must end rather than go on without confirming.
"""

import errno
import resource

from support import DEADLINE, Broker, Client, Closed, once

SIZE = 8 << 10
DISK = "40m"
SMALL = ('limits.disk_free="4MiB"', "storage.slack_segments=1")


def fill(client, first, most):
    """Publishes from number `first` on until the broker blocks this publisher; returns the next number."""
    number = first
    while number < first + most:
        for _ in range(20):
            client.put(number, SIZE)
            number += 1
        # Between the last free byte and the alarm messages are refused; the alarm stops whoever goes on.
        while len(client.pending) > 20 and not client.blocked:
            client.hear(DEADLINE)
        if client.blocked:
            return number
    raise AssertionError(f"{most} messages of {SIZE} bytes were answered on a disk of {DISK}")


def take_all_room(path):
    """Fills the disk from outside to the last byte."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(64 << 10)):
                pass
        except OSError as full:
            assert full.errno == errno.ENOSPC, full


def drain_beside(broker, publisher):
    """Consumes everything while the publisher is stopped; returns the numbers."""
    with Client(broker, confirms=False) as consumer:
        taken = consumer.take()
        assert taken, "nothing came although messages are waiting"
        publisher.settle()
        return taken + consumer.take()


def a_full_disk_stops_publishers_and_not_consumers():
    with Broker(*SMALL, disk=DISK) as broker:
        broker.start()
        with Client(broker) as publisher:
            publisher.declare()
            end = fill(publisher, 0, 200_000)
            assert len(publisher.confirmed) > 500, f"only {len(publisher.confirmed)} found room"
            broker.said("disk space is low")
            taken = drain_beside(broker, publisher)
            once(taken, publisher.confirmed, range(end))
            # Space is back: publishing works again by itself, on the same connection.
            for number in range(end, end + 300):
                publisher.put(number, SIZE)
            publisher.settle()
            kept = {number for number in publisher.confirmed if number >= end}
            assert kept == set(range(end, end + 300)), "refused although there was room again"
        broker.stop()
        broker.start()
        with Client(broker, confirms=False) as consumer:
            once(consumer.take(), kept)


def a_full_disk_and_a_kill_lose_nothing():
    with Broker(*SMALL, disk=DISK) as broker:
        broker.start()
        with Client(broker) as publisher:
            publisher.declare()
            end = fill(publisher, 0, 200_000)
            confirmed = set(publisher.confirmed)
            broker.kill()
        broker.start()
        with Client(broker, confirms=False) as consumer:
            first = consumer.take(200)
        broker.stop()
        broker.start()
        with Client(broker, confirms=False) as consumer:
            once(first + consumer.take(), confirmed, range(end))


def a_disk_filled_by_somebody_else():
    with Broker(*SMALL, disk=DISK) as broker:
        broker.start()
        hog = broker.data / "hog"
        with Client(broker) as publisher:
            publisher.declare()
            for number in range(100):
                publisher.put(number, SIZE)
            publisher.settle()
            take_all_room(hog)
            end = fill(publisher, 100, 200_000)
            with Client(broker, confirms=False) as consumer:
                first = consumer.take(50)
            assert first == list(range(50)), "consumers did not go on"
            hog.unlink()
            publisher.settle()
            for number in range(end, end + 100):
                publisher.put(number, SIZE)
            publisher.settle()
            confirmed = set(publisher.confirmed)
            assert set(range(end, end + 100)) <= confirmed, "refused although there was room again"
        broker.stop()
        broker.start()
        with Client(broker, confirms=False) as consumer:
            once(first + consumer.take(), confirmed, range(end))


def a_disk_without_any_floor_runs_full():
    with Broker('limits.disk_free="0B"', disk="16m") as broker:
        broker.start()
        with Client(broker) as publisher:
            publisher.declare()
            end = fill(publisher, 0, 200_000)
            taken = drain_beside(broker, publisher)
            once(taken, publisher.confirmed, range(end))
        broker.stop()


def a_write_that_fails_ends_the_broker():
    with Broker() as broker:
        # Beyond the limit writes fail; without this the limit would be deadly by itself.
        wrapper = broker.folder / "portolan"
        wrapper.write_text(f'#!/bin/sh\ntrap "" XFSZ\nexec "{broker.binary}" "$@"\n')
        wrapper.chmod(0o755)
        broker.binary = wrapper
        broker.start()
        with Client(broker) as publisher:
            publisher.declare()
            for number in range(50):
                publisher.put(number, SIZE)
            publisher.settle()
            confirmed = set(publisher.confirmed)
            resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (40 * SIZE, 40 * SIZE))
            publisher.put(50, SIZE)
            try:
                while publisher.hear(DEADLINE) and publisher.confirmed == confirmed:
                    pass
            except (Closed, AssertionError):
                pass  # an orderly goodbye is as good as none
            assert publisher.confirmed == confirmed, "confirmed what was not written"
        assert broker.process.wait(DEADLINE) == 74, broker.process.returncode
        broker.said("the journal failed")
        broker.said("the broker cannot go on")
        broker.start()
        with Client(broker, confirms=False) as consumer:
            once(consumer.take(), confirmed, [50])


CHECKS = [
    a_full_disk_stops_publishers_and_not_consumers,
    a_full_disk_and_a_kill_lose_nothing,
    a_disk_filled_by_somebody_else,
    a_disk_without_any_floor_runs_full,
    a_write_that_fails_ends_the_broker,
]
