"""Every AMQP 0-9-1 method RabbitMQ speaks: ids and fields in wire order."""

from collections import namedtuple

Method = namedtuple("Method", "name class_id method_id fields")
Field = namedtuple("Field", "name kind")

# Field kinds: octet short long longlong shortstr longstr table bit. A name starting with `_` is reserved:
# sent as zero or empty unless the caller gives it, and left out of what is shown.
_TABLE = """
10.10 connection.start        version-major:octet version-minor:octet server-properties:table mechanisms:longstr locales:longstr
10.11 connection.start-ok     client-properties:table mechanism:shortstr response:longstr locale:shortstr
10.20 connection.secure       challenge:longstr
10.21 connection.secure-ok    response:longstr
10.30 connection.tune         channel-max:short frame-max:long heartbeat:short
10.31 connection.tune-ok      channel-max:short frame-max:long heartbeat:short
10.40 connection.open         vhost:shortstr _capabilities:shortstr _insist:bit
10.41 connection.open-ok      _known-hosts:shortstr
10.50 connection.close        code:short text:shortstr class:short method:short
10.51 connection.close-ok
10.60 connection.blocked      reason:shortstr
10.61 connection.unblocked
10.70 connection.update-secret new-secret:longstr reason:shortstr
10.71 connection.update-secret-ok
20.10 channel.open            _out-of-band:shortstr
20.11 channel.open-ok         _channel-id:longstr
20.20 channel.flow            active:bit
20.21 channel.flow-ok         active:bit
20.40 channel.close           code:short text:shortstr class:short method:short
20.41 channel.close-ok
30.10 access.request          realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit
30.11 access.request-ok       ticket:short
40.10 exchange.declare        _ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto-delete:bit internal:bit no-wait:bit arguments:table
40.11 exchange.declare-ok
40.20 exchange.delete         _ticket:short exchange:shortstr if-unused:bit no-wait:bit
40.21 exchange.delete-ok
40.30 exchange.bind           _ticket:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bit arguments:table
40.31 exchange.bind-ok
40.40 exchange.unbind         _ticket:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bit arguments:table
40.51 exchange.unbind-ok
50.10 queue.declare           _ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto-delete:bit no-wait:bit arguments:table
50.11 queue.declare-ok        queue:shortstr messages:long consumers:long
50.20 queue.bind              _ticket:short queue:shortstr exchange:shortstr routing-key:shortstr no-wait:bit arguments:table
50.21 queue.bind-ok
50.30 queue.purge             _ticket:short queue:shortstr no-wait:bit
50.31 queue.purge-ok          messages:long
50.40 queue.delete            _ticket:short queue:shortstr if-unused:bit if-empty:bit no-wait:bit
50.41 queue.delete-ok         messages:long
50.50 queue.unbind            _ticket:short queue:shortstr exchange:shortstr routing-key:shortstr arguments:table
50.51 queue.unbind-ok
60.10 basic.qos               size:long count:short global:bit
60.11 basic.qos-ok
60.20 basic.consume           _ticket:short queue:shortstr tag:shortstr no-local:bit no-ack:bit exclusive:bit no-wait:bit arguments:table
60.21 basic.consume-ok        tag:shortstr
60.30 basic.cancel            tag:shortstr no-wait:bit
60.31 basic.cancel-ok         tag:shortstr
60.40 basic.publish           _ticket:short exchange:shortstr routing-key:shortstr mandatory:bit immediate:bit
60.50 basic.return            code:short text:shortstr exchange:shortstr routing-key:shortstr
60.60 basic.deliver           tag:shortstr delivery:longlong redelivered:bit exchange:shortstr routing-key:shortstr
60.70 basic.get               _ticket:short queue:shortstr no-ack:bit
60.71 basic.get-ok            delivery:longlong redelivered:bit exchange:shortstr routing-key:shortstr messages:long
60.72 basic.get-empty         _cluster-id:shortstr
60.80 basic.ack               delivery:longlong multiple:bit
60.90 basic.reject            delivery:longlong requeue:bit
60.100 basic.recover-async    requeue:bit
60.110 basic.recover          requeue:bit
60.111 basic.recover-ok
60.120 basic.nack             delivery:longlong multiple:bit requeue:bit
85.10 confirm.select          no-wait:bit
85.11 confirm.select-ok
90.10 tx.select
90.11 tx.select-ok
90.20 tx.commit
90.21 tx.commit-ok
90.30 tx.rollback
90.31 tx.rollback-ok
"""


def _parse():
    for line in _TABLE.strip().splitlines():
        ids, name, *fields = line.split()
        class_id, method_id = map(int, ids.split("."))
        yield Method(name, class_id, method_id, [Field(*f.split(":")) for f in fields])


BY_NAME = {method.name: method for method in _parse()}
BY_ID = {(method.class_id, method.method_id): method for method in BY_NAME.values()}

# Basic content properties, highest flag bit first.
PROPERTIES = [
    Field(*item.split(":"))
    for item in (
        "content-type:shortstr content-encoding:shortstr headers:table delivery-mode:octet priority:octet "
        "correlation-id:shortstr reply-to:shortstr expiration:shortstr message-id:shortstr timestamp:longlong "
        "type:shortstr user-id:shortstr app-id:shortstr cluster-id:shortstr"
    ).split()
]
