"""Queues with limits, lifetimes, priorities and dead letters."""

import pika
from check import check, fresh, same, until
from pika import exceptions
from pika_helpers import Inbox, channel, connect, drain, get, publish, ready


def refused(code, action):
    """Fails unless the broker closes the channel with this code."""
    try:
        action()
    except exceptions.ChannelClosedByBroker as closed:
        same(closed.reply_code, code, "reply code")
        return closed.reply_text
    raise AssertionError(f"not refused with {code}")


def exists(queue):
    """Whether the queue is there, asked on a connection of its own."""
    with channel() as ch:
        try:
            ch.queue_declare(queue, passive=True)
            return True
        except exceptions.ChannelClosedByBroker as closed:
            same(closed.reply_code, 404)
            return False


@check
def server_named_queues_differ():
    with channel() as ch:
        names = {ch.queue_declare("", exclusive=True).method.queue for _ in range(50)}
        same(len(names), 50)
        assert all(name.startswith("amq.gen-") for name in names), names


@check
def exclusive_queue_belongs_to_its_connection():
    owner, queue = connect(), fresh()
    owner.channel().queue_declare(queue, exclusive=True)
    with channel() as ch:
        refused(405, lambda: ch.queue_declare(queue, passive=True))
    owner.close()
    same(exists(queue), False, "exists after its connection closed")


@check
def auto_delete_queue_goes_with_its_last_consumer():
    with channel() as ch:
        queue = fresh()
        ch.queue_declare(queue, auto_delete=True)
        one, two = Inbox(ch, queue), Inbox(ch, queue)
        ch.basic_cancel(one.tag)
        same(exists(queue), True, "exists with one consumer left")
        ch.basic_cancel(two.tag)
        until(lambda: not exists(queue), "deletion")


@check
def redeclaring_otherwise_is_refused():
    with channel() as ch:
        queue = fresh()
        ch.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
        ch.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
        text = refused(406, lambda: ch.queue_declare(queue, durable=False, arguments={"x-max-length": 5}))
        assert text.startswith(f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/'"), text
    with channel() as ch:
        ch.queue_delete(queue)


@check
def purge_and_delete_count_ready_messages():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        for _ in range(4):
            publish(ch, queue)
        get(ch, queue)
        same(ch.queue_purge(queue).method.message_count, 3)
        publish(ch, queue)
        same(ch.queue_delete(queue).method.message_count, 1)


@check
def delete_if_unused_and_if_empty():
    with channel(confirm=True) as ch:
        queue = fresh()
        ch.queue_declare(queue)
        publish(ch, queue)
        refused(406, lambda: ch.queue_delete(queue, if_empty=True))
    with channel() as ch:
        Inbox(ch, queue)
        refused(406, lambda: ch.queue_delete(queue, if_unused=True))
    with channel() as ch:
        ch.queue_delete(queue)


@check
def message_ttl_of_queue_and_of_message():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True, arguments={"x-message-ttl": 100}).method.queue
        other = ch.queue_declare("", exclusive=True).method.queue
        publish(ch, queue)
        publish(ch, other, expiration="100")
        publish(ch, other, b"stays")
        until(lambda: ready(ch, queue) == 0 and ready(ch, other) == 1, "expiry")
        same(drain(ch, other), [b"stays"])


@check
def queue_expires_when_unused():
    with channel() as ch:
        queue = fresh()
        ch.queue_declare(queue, arguments={"x-expires": 300})
        inbox = Inbox(ch, queue)
        ch.connection.process_data_events(0.7)
        same(exists(queue), True, "exists while it has a consumer")
        ch.basic_cancel(inbox.tag)
    # Asking by passive declare would count as use.
    with channel(confirm=True) as ch:

        def gone():
            try:
                publish(ch, queue, mandatory=True)
                return False
            except exceptions.UnroutableError:
                return True

        until(gone, "expiry")


@check
def max_length_drops_the_head():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True, arguments={"x-max-length": 3}).method.queue
        for i in range(6):
            publish(ch, queue, b"%d" % i)
        same(drain(ch, queue), [b"3", b"4", b"5"])


@check
def max_length_bytes_drops_the_head():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True, arguments={"x-max-length-bytes": 100}).method.queue
        for i in range(4):
            publish(ch, queue, b"%d" % i * 40)
        same(drain(ch, queue), [b"2" * 40, b"3" * 40])


@check
def full_queue_rejects_the_publish():
    with channel(confirm=True) as ch:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = ch.queue_declare("", exclusive=True, arguments=arguments).method.queue
        publish(ch, queue, b"in")
        try:
            publish(ch, queue, b"out")
            raise AssertionError("confirmed")
        except exceptions.NackError:
            pass
        same(drain(ch, queue), [b"in"])


@check
def priorities():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True, arguments={"x-max-priority": 5}).method.queue
        for priority in (None, 0, 3, 9, 5, 1):
            publish(ch, queue, str(priority).encode(), priority=priority)
        same(drain(ch, queue), [b"9", b"5", b"3", b"1", b"None", b"0"])


def with_dead_letters(ch, arguments):
    """(queue, the queue its dead letters come to)."""
    dead = ch.queue_declare("", exclusive=True).method.queue
    full = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, **arguments}
    return ch.queue_declare("", exclusive=True, arguments=full).method.queue, dead


@check
def rejected_messages_are_dead_lettered():
    with channel(confirm=True) as ch:
        queue, dead = with_dead_letters(ch, {})
        publish(ch, queue, b"bad", headers={"mine": 1}, message_id="7")
        ch.basic_reject(get(ch, queue)[0].delivery_tag, requeue=False)
        method, properties, body = get(ch, dead, True)
        same((body, method.redelivered, method.routing_key, properties.message_id), (b"bad", False, dead, "7"))
        death = properties.headers["x-death"][0]
        same(death.pop("time").year >= 2020, True, "time")
        same(death, {"count": 1, "reason": "rejected", "queue": queue, "exchange": "", "routing-keys": [queue]})
        first = {key: properties.headers[f"x-first-death-{key}"] for key in ("queue", "reason", "exchange")}
        same(first, {"queue": queue, "reason": "rejected", "exchange": ""})
        same(properties.headers["mine"], 1)


@check
def expired_messages_are_dead_lettered():
    with channel(confirm=True) as ch:
        queue, dead = with_dead_letters(ch, {})
        publish(ch, queue, b"late", expiration="50")
        _, properties, _ = get(ch, dead, True)
        death = properties.headers["x-death"][0]
        same((death["reason"], death["original-expiration"], properties.expiration), ("expired", "50", None))


@check
def dropped_messages_are_dead_lettered():
    with channel(confirm=True) as ch:
        queue, dead = with_dead_letters(ch, {"x-max-length": 1})
        publish(ch, queue, b"first"), publish(ch, queue, b"second")
        _, properties, body = get(ch, dead, True)
        same((body, properties.headers["x-death"][0]["reason"]), (b"first", "maxlen"))


@check
def retry_loop_counts_its_rounds():
    with channel(confirm=True) as ch:
        work, wait = fresh(), fresh()
        ch.queue_declare(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
        back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 20}
        ch.queue_declare(wait, arguments=back)
        publish(ch, work, b"again")
        for round_ in range(3):
            method, properties, _ = get(ch, work)
            deaths = {d["queue"]: d["count"] for d in (properties.headers or {}).get("x-death", [])}
            same(deaths, {work: round_, wait: round_} if round_ else {}, f"counts in round {round_}")
            ch.basic_reject(method.delivery_tag, requeue=False)
        ch.queue_delete(work), ch.queue_delete(wait)


@check
def expiry_loop_without_a_rejection_ends():
    with channel(confirm=True) as ch:
        one, two = fresh(), fresh()
        for queue, target in ((one, two), (two, one)):
            arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target, "x-message-ttl": 20}
            ch.queue_declare(queue, arguments=arguments)
        publish(ch, one, b"round")
        until(lambda: ready(ch, one) == 0 and ready(ch, two) == 0, "the message to be dropped")
        ch.queue_delete(one), ch.queue_delete(two)


@check
def quorum_queue_limits_deliveries():
    with channel(confirm=True) as ch:
        queue, dead = fresh(), ch.queue_declare("", exclusive=True).method.queue
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        ch.queue_declare(queue, durable=True, arguments=arguments)
        publish(ch, queue, b"poison")
        for attempt in range(3):
            method, properties, _ = get(ch, queue)
            same((properties.headers or {}).get("x-delivery-count", 0), attempt, "x-delivery-count")
            ch.basic_nack(method.delivery_tag, requeue=True)
        _, properties, body = get(ch, dead, True)
        same((body, properties.headers["x-death"][0]["reason"]), (b"poison", "delivery_limit"))
        ch.queue_delete(queue)


@check
def celery_sized_ttl_is_accepted():
    with channel() as ch:
        ch.queue_declare("", exclusive=True, arguments={"x-message-ttl": 134217728000, "x-expires": 315360000000})


@check
def wrong_password_vhost_and_closed_channel_say_why():
    try:
        connect(password="wrong")
        raise AssertionError("let in")
    except exceptions.ProbableAuthenticationError as error:
        assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in str(error), error
    try:
        connect(vhost="nowhere")
        raise AssertionError("let in")
    except exceptions.ProbableAccessDeniedError as error:
        assert "(530) 'NOT_ALLOWED - vhost nowhere not found'" in str(error), error
    with channel() as ch:
        text = refused(404, lambda: ch.queue_bind("nope", "amq.direct"))
        same(text, "NOT_FOUND - no queue 'nope' in vhost '/'")


@check
def server_properties_announce_what_clients_look_for():
    connection = connect()
    properties = connection._impl.server_properties
    same(properties["product"], "RabbitMQ")
    wanted = (
        "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
        "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
    )  # fmt: skip
    same([name for name in wanted if properties["capabilities"].get(name) is not True], [], "missing capabilities")
    assert connection.basic_nack_supported and connection.publisher_confirms_supported
    connection.close()


@check
def consume_iterator_and_inactivity():
    with channel(confirm=True) as ch:
        queue = ch.queue_declare("", exclusive=True).method.queue
        publish(ch, queue, b"a")
        seen = []
        for method, _, body in ch.consume(queue, inactivity_timeout=0.2):
            if method is None:
                break
            seen.append(body)
            ch.basic_ack(method.delivery_tag)
        same((seen, ch.cancel()), ([b"a"], 0))


@check
def select_connection_publishes_and_consumes():
    got, queue = [], fresh()

    def opened(connection):
        connection.channel(on_open_callback=with_channel)

    def with_channel(ch):
        def message(_ch, method, _properties, body):
            got.append(body)
            ch.basic_ack(method.delivery_tag)
            connection.close()

        def consuming(_frame):
            ch.basic_publish("", queue, b"async")

        def declared(_frame):
            ch.basic_consume(queue, message, callback=consuming)

        ch.queue_declare(queue, exclusive=True, callback=declared)

    from check import HOST, PORT

    connection = pika.SelectConnection(
        pika.ConnectionParameters(HOST, PORT),
        on_open_callback=opened,
        on_close_callback=lambda c, _why: c.ioloop.stop(),
        on_open_error_callback=lambda c, _why: c.ioloop.stop(),
    )
    connection.ioloop.call_later(15, connection.ioloop.stop)
    connection.ioloop.start()
    same(got, [b"async"])
