"""aio-pika: asyncio, pipelined confirms, and connections that come back by themselves."""

import asyncio
import logging
from datetime import UTC, datetime

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import AMQPException, DeliveryError, QueueEmpty
from aiormq.exceptions import ChannelPreconditionFailed
from check import DEADLINE, URL, check, control, fresh, run, same


class Client:
    """A connection and a confirming channel."""

    def __init__(self, robust=False):
        self.connect = aio_pika.connect_robust if robust else aio_pika.connect

    async def __aenter__(self):
        self.connection = await self.connect(URL, timeout=DEADLINE)
        self.channel = await self.connection.channel(on_return_raises=True)
        return self.channel

    async def __aexit__(self, *_):
        await self.connection.close()


async def get(queue, **options):
    """A message, waited for."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await queue.get(**options)
            except QueueEmpty:
                await asyncio.sleep(0.01)


async def bodies(queue, count):
    """The next `count` messages, acknowledged one by one."""
    found = []
    async with asyncio.timeout(DEADLINE), queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                found.append(message.body)
            if len(found) == count:
                return found


@check
async def thousands_of_confirms_in_flight():
    async with Client() as ch:
        queue = await ch.declare_queue("", exclusive=True)
        messages = [Message(b"%d" % i, delivery_mode=DeliveryMode.PERSISTENT) for i in range(2000)]
        await asyncio.gather(*(ch.default_exchange.publish(m, queue.name) for m in messages))
        same(await bodies(queue, 2000), [b"%d" % i for i in range(2000)])


@check
async def prefetch_bounds_what_is_unacked():
    async with Client() as ch:
        await ch.set_qos(prefetch_count=3)
        queue = await ch.declare_queue("", exclusive=True)
        for i in range(10):
            await ch.default_exchange.publish(Message(b"%d" % i), queue.name)
        held, three = [], asyncio.Event()

        async def take(message):
            held.append(message)
            if len(held) >= 3:
                three.set()

        await queue.consume(take)
        await asyncio.wait_for(three.wait(), DEADLINE)
        await asyncio.sleep(0.2)
        same(len(held), 3, "unacked")
        for message in held[:3]:
            await message.ack()
        async with asyncio.timeout(DEADLINE):
            while len(held) < 6:
                await asyncio.sleep(0.01)


@check
async def unroutable_mandatory_message_is_returned():
    async with Client() as ch:
        try:
            await ch.default_exchange.publish(Message(b"x"), fresh("nowhere"))
            raise AssertionError("delivered")
        except DeliveryError as error:
            same(error.message.delivery.reply_code, 312)


@check
async def full_queue_nacks():
    async with Client() as ch:
        queue = await ch.declare_queue("", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await ch.default_exchange.publish(Message(b"in"), queue.name)
        try:
            await ch.default_exchange.publish(Message(b"out"), queue.name)
            raise AssertionError("confirmed")
        except DeliveryError:
            pass


@check
async def exchanges_and_bindings():
    async with Client() as ch:
        topic = await ch.declare_exchange(fresh("x"), ExchangeType.TOPIC, auto_delete=True)
        fanout = await ch.declare_exchange(fresh("x"), ExchangeType.FANOUT, auto_delete=True)
        await fanout.bind(topic, "a.#")
        queue = await ch.declare_queue("", exclusive=True)
        await queue.bind(fanout)
        await topic.publish(Message(b"x"), "a.b.c")
        message = await get(queue, no_ack=True)
        same((message.body, message.exchange, message.routing_key), (b"x", topic.name, "a.b.c"))


@check
async def headers_exchange_matches():
    async with Client() as ch:
        exchange = await ch.get_exchange("amq.headers")
        queue = await ch.declare_queue("", exclusive=True)
        await queue.bind(exchange, "", arguments={"x-match": "any", "a": 1, "b": "x"})
        await exchange.publish(Message(b"yes", headers={"a": 1, "b": "y"}), "")
        same((await get(queue, no_ack=True)).body, b"yes")


@check
async def requeue_and_dead_letter():
    async with Client() as ch:
        dead = await ch.declare_queue("", exclusive=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
        queue = await ch.declare_queue("", exclusive=True, arguments=arguments)
        await ch.default_exchange.publish(Message(b"x"), queue.name)
        await (await get(queue)).nack(requeue=True)
        again = await get(queue)
        same(again.redelivered, True)
        await again.reject(requeue=False)
        message = await get(dead, no_ack=True)
        same(message.headers["x-death"][0]["reason"], "rejected")


@check
async def transaction():
    async with await aio_pika.connect(URL) as connection:
        ch = await connection.channel(publisher_confirms=False)
        queue = await ch.declare_queue("", exclusive=True)
        async with ch.transaction():
            await ch.default_exchange.publish(Message(b"kept"), queue.name)
        try:
            async with ch.transaction():
                await ch.default_exchange.publish(Message(b"dropped"), queue.name)
                raise ValueError
        except ValueError:
            pass
        same((await get(queue)).body, b"kept")
        same(await queue.get(fail=False), None)


@check
async def rpc_pattern():
    from aio_pika.patterns import RPC

    async with Client() as server, Client() as client:
        there, here = await RPC.create(server), await RPC.create(client)

        async def double(*, number):
            return number * 2

        name = fresh("double")
        await there.register(name, double, auto_delete=True)
        same(await asyncio.gather(*(here.call(name, {"number": i}) for i in range(20))), [i * 2 for i in range(20)])
        await here.close(), await there.close()


@check
async def headers_of_all_types_aio_pika_knows_come_back():
    async with Client() as ch:
        queue = await ch.declare_queue("", exclusive=True)
        headers = {
            "bool": True, "int": 5, "big": 1 << 40, "negative": -1, "double": 2.5, "void": None, "string": "é",
            "time": datetime.fromtimestamp(1700000000, UTC), "table": {"a": {"b": [1, None]}}, "list": [1, "x", 2.5, {"k": True}],
        }  # fmt: skip
        await ch.default_exchange.publish(Message(b"", headers=headers), queue.name)
        same(dict((await get(queue, no_ack=True)).headers), headers)


@check
async def consumer_is_cancelled_with_its_queue():
    async with Client() as ch, Client() as other:
        queue = await ch.declare_queue(fresh())
        tag = await queue.consume(lambda _message: None)
        underlay = await ch.get_underlay_channel()
        assert tag in underlay.consumers
        await (await other.declare_queue(queue.name, passive=True)).delete(if_unused=False)
        async with asyncio.timeout(DEADLINE):
            while tag in underlay.consumers:
                await asyncio.sleep(0.01)


@check
async def channel_error_leaves_the_connection_usable():
    async with Client() as ch:
        queue = await ch.declare_queue(fresh(), exclusive=True)
        try:
            await ch.declare_queue(queue.name, exclusive=True, arguments={"x-max-length": 1})
            raise AssertionError("accepted")
        except ChannelPreconditionFailed as error:
            assert "inequivalent arg 'x-max-length'" in str(error), error
        await ch.reopen()
        same((await ch.declare_queue("", exclusive=True)).declaration_result.message_count, 0)


@check
async def twenty_mebibytes():
    async with Client() as ch:
        queue = await ch.declare_queue("", exclusive=True)
        data = bytes(range(256)) * (20 << 12)
        await ch.default_exchange.publish(Message(data), queue.name)
        assert (await get(queue, no_ack=True)).body == data


@check
async def a_hundred_connections_at_once():
    clients = await asyncio.gather(*(aio_pika.connect(URL) for _ in range(100)))
    channels = await asyncio.gather(*(c.channel() for c in clients))
    queues = await asyncio.gather(*(ch.declare_queue("", exclusive=True) for ch in channels))
    same(len({queue.name for queue in queues}), 100)
    await asyncio.gather(*(c.close() for c in clients))


@check
async def robust_connection_comes_back_with_its_consumers():
    client = Client(robust=True)
    async with client as ch:
        queue = await ch.declare_queue(fresh(), durable=True)
        got = asyncio.Queue()

        async def take(message):
            await message.ack()
            await got.put(message.body)

        await queue.consume(take)
        await ch.default_exchange.publish(Message(b"before", delivery_mode=2), queue.name)
        same(await asyncio.wait_for(got.get(), DEADLINE), b"before")
        await asyncio.to_thread(control, "kill")
        async with asyncio.timeout(60):
            while True:
                try:
                    await ch.default_exchange.publish(Message(b"after", delivery_mode=2), queue.name)
                    break
                except (AMQPException, ConnectionError, RuntimeError):
                    await asyncio.sleep(0.2)
        while (await asyncio.wait_for(got.get(), 60)) != b"after":
            pass
        await queue.delete(if_unused=False, if_empty=False)


@check
async def confirmed_messages_survive_kill_9():
    async with Client() as ch:
        queue = await ch.declare_queue(fresh(), durable=True)
        publish = ch.default_exchange.publish
        await asyncio.gather(*(publish(Message(b"%d" % i, delivery_mode=2), queue.name) for i in range(500)))
        await asyncio.to_thread(control, "kill")
    async with Client() as ch:
        queue = await ch.declare_queue(queue.name, durable=True)
        same(await bodies(queue, 500), [b"%d" % i for i in range(500)])
        await queue.delete(if_unused=False)


if __name__ == "__main__":
    logging.disable()  # the library reports each broker we kill, with a traceback
    run(lambda function: asyncio.run(asyncio.wait_for(function(), 90)))
