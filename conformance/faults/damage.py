"""A data folder that is not as it was written: refused with file, place and advice, or repaired when asked."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from support import QUEUE, SEGMENT, Broker, Client, once

COUNT = 600
SIZE = 8 << 10
REPAIR = 'storage.on_damage="repair"'
ALL = range(COUNT)


class Original:
    """A folder with numbered messages in several segments, stopped in good order and made once."""

    folder = None

    @classmethod
    def get(cls):
        if cls.folder is None:
            with Broker() as broker:
                broker.start()
                with Client(broker) as client:
                    client.declare()
                    for number in ALL:
                        client.put(number, SIZE)
                    client.settle()
                    once(sorted(client.confirmed), ALL)
                broker.stop()
                cls.folder = Path(tempfile.mkdtemp(prefix="faults-")) / "data"
                shutil.copytree(broker.data, cls.folder)
        return cls.folder

    @classmethod
    def remove(cls):
        if cls.folder:
            shutil.rmtree(cls.folder.parent, ignore_errors=True)


@contextmanager
def damaged(damage, *settings):
    """A broker, not started, on a copy that `damage` was let loose on."""
    with Broker(*settings, copy_of=Original.get()) as broker:
        damage(broker)
        yield broker


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def last(broker):
    """The segment that was written to last."""
    return [path for path in broker.segments() if b"%d " % (COUNT - 1) in path.read_bytes()][-1]


def place_of(path, number):
    """Where in a segment the body of that message is."""
    return path.read_bytes().index(str(number).encode().ljust(64))


def left(broker):
    """What the started broker still has, without being told that anything is wrong twice."""
    with Client(broker, confirms=False) as client:
        return client.take()


def every_message_is_there(damage, *said):
    with damaged(damage) as broker:
        broker.start()
        if said:
            broker.said(*said)
        once(left(broker), ALL)
        broker.stop()


def refused_then_repaired(damage, words, lost):
    """Refused as it is; started with repair, which says what it drops and keeps all but `lost`; then fine."""
    with damaged(damage) as broker:
        broker.refused(65, *words, 'on_damage = "repair"')
        # A refusal changes nothing.
        broker.refused(65, *words)
    with damaged(damage, REPAIR) as broker:
        broker.start()
        broker.said("damage skipped as asked", *words[:1])
        broker.stop()
        broker.settings.remove(REPAIR)
        broker.start()
        kept = left(broker)
        once(kept, [number for number in ALL if number not in lost], ALL)
        assert len(kept) < COUNT, "nothing was lost"
        broker.stop()


def a_flipped_byte_in_the_last_segment():
    number = COUNT - 20

    def damage(broker):
        flip(last(broker), place_of(last(broker), number) + 3000)

    refused_then_repaired(damage, [".seg", "damaged at byte", "records"], {number})


def a_flipped_byte_in_a_message_of_a_sealed_segment():
    # Its index is sound, so the start does not read it; whoever asks for the message finds out.
    def damage(broker):
        flip(broker.segments()[1], place_of(broker.segments()[1], 200) + 3000)

    with damaged(damage) as broker:
        broker.start()
        once(left(broker), [number for number in ALL if number != 200])
        broker.said("0000000002.seg", "damaged at byte")
        broker.stop()


def a_flipped_byte_in_a_segment_header():
    every_message_is_there(lambda broker: flip(broker.segments()[1], 26), "segment header unreadable", "0000000002.seg")


def a_flipped_byte_in_the_last_segment_header():
    every_message_is_there(lambda broker: flip(last(broker), 26), "segment header unreadable")


def a_flipped_byte_in_a_segment_index():
    def damage(broker):
        flip(broker.segments()[1], SEGMENT - 20)

    every_message_is_there(damage, "no readable index", "0000000002.seg")


def a_segment_that_was_cut():
    def damage(broker):
        with open(broker.segments()[1], "r+b") as file:
            file.truncate(SEGMENT // 2)

    segment = Original.get() / "journal/0000000002.seg"
    cut = {number for number in ALL if place(segment, number) > SEGMENT // 2 - SIZE}
    refused_then_repaired(damage, ["0000000002.seg", f"damaged at byte {SEGMENT // 2}"], cut)


def place(path, number):
    """Where a message is in the segment, 0 when it is in another."""
    return max(path.read_bytes().find(str(number).encode().ljust(64)), 0)


def a_segment_that_is_missing():
    segment = Original.get() / "journal/0000000003.seg"
    gone = {number for number in ALL if place(segment, number)}
    refused_then_repaired(lambda broker: broker.segments()[2].unlink(), ["0000000003.seg", "is missing"], gone)


def a_journal_that_is_missing():
    def damage(broker):
        for path in broker.segments():
            path.unlink()

    with damaged(damage) as broker:
        broker.refused(65, "journal", "backup")


def a_checkpoint_that_is_gone():
    every_message_is_there(lambda broker: shutil.rmtree(broker.data / "checkpoint"))


def a_checkpoint_full_of_garbage():
    def damage(broker):
        for path in (broker.data / "checkpoint").iterdir():
            if path.is_file():
                path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()[: 64 << 10]))

    every_message_is_there(damage, "checkpoint unusable, rebuilding it")


def a_folder_of_a_newer_version():
    def damage(broker):
        (broker.data / "format").write_text("portolan data folder, format 9\n")

    with damaged(damage) as broker:
        broker.refused(65, "9", "newer")


def a_format_that_is_unreadable():
    def damage(broker):
        (broker.data / "format").write_bytes(b"\xff\x00garbage")

    with damaged(damage) as broker:
        broker.refused(65, "format", "damaged at byte 0", "restore")


def a_second_broker_on_the_same_folder():
    with Broker() as first, Broker() as second:
        first.start()
        second.folder.joinpath("data").symlink_to(first.data)
        second.refused(73, "another broker")
        with Client(first) as client:
            client.declare()
            client.put(1, 100)
            client.settle()
            assert client.take() == [1]
            client.call("queue.delete", queue=QUEUE)
        first.stop()


CHECKS = [value for name, value in list(globals().items()) if name.startswith("a_") and callable(value)]
