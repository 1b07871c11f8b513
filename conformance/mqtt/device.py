"""A paho client whose events are waited for: what the checks with paho share."""

import itertools
import os
import sys
import threading
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True
import paho.mqtt.client as mqtt  # noqa: E402
from check import DEADLINE, until  # noqa: E402
from paho.mqtt.packettypes import PacketTypes  # noqa: E402
from paho.mqtt.properties import Properties  # noqa: E402

HOST, PORT = os.environ.get("BROKER_HOST", "127.0.0.1"), int(os.environ.get("BROKER_MQTT", "1883"))
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
FOREVER = 0xFFFFFFFF
_numbers = itertools.count(1)


def fresh(prefix="t"):
    """A topic or client id no other check uses; short enough for 3.1."""
    return f"{prefix}{os.getpid()}p{next(_numbers)}"


def properties(kind, **values):
    """Properties of one packet type: properties("PUBLISH", ContentType="text/plain")."""
    made = Properties(getattr(PacketTypes, kind))
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Device:
    """A connected client with its network thread; `messages` is what it has received."""

    def __init__(self, version, client_id=None, clean=True, expiry=0, will=None, user=None, keepalive=60, connect=True, **connect_properties):
        self.version, self.messages, self.connack, self.left, self.acks = version, [], None, None, {}
        self.arrived = threading.Condition()
        self.client_id = fresh("c") if client_id is None else client_id
        options = {} if version == "5" else {"clean_session": clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, self.client_id, protocol=VERSIONS[version], reconnect_on_failure=False, **options)
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        self.client.on_message = self._message
        self.client.on_subscribe = lambda _c, _u, number, codes, _p: self.acks.__setitem__(number, [code.value for code in codes])
        self.client.on_unsubscribe = lambda _c, _u, number, codes, _p: self.acks.__setitem__(number, codes)
        self.client.on_publish = lambda _c, _u, number, code, _p: self.acks.__setitem__(number, code)
        if user:
            self.client.username_pw_set(*user)
        if will:
            self.client.will_set(**will)
        more = {}
        if version == "5":
            more = {"clean_start": clean, "properties": properties("CONNECT", SessionExpiryInterval=expiry, **connect_properties)}
        self.client.connect(HOST, PORT, keepalive, **more)
        self.client.loop_start()
        if connect:
            until(lambda: self.connack, "CONNACK")
            assert self.connack[1] == "Success", self.connack

    def _connected(self, _client, _data, flags, reason, given):
        self.connack = (flags.session_present, str(reason), given)

    def _disconnected(self, _client, _data, _flags, reason, _properties):
        self.left = str(reason)

    def _message(self, _client, _data, message):
        with self.arrived:
            self.messages.append(message)
            self.arrived.notify_all()

    @property
    def present(self):
        return self.connack[0]

    def publish(self, topic, payload="m", qos=1, retain=False, **values):
        """Publishes and waits for the end of the handshake."""
        made = properties("PUBLISH", **values) if values else None
        sent = self.client.publish(topic, payload, qos, retain, made)
        sent.wait_for_publish(DEADLINE)
        assert sent.is_published(), "not acknowledged"
        return self.acks.get(sent.mid)

    def subscribe(self, topic, qos=1, options=None, **values):
        """Subscribes and waits for the codes."""
        if options:
            _, number = self.client.subscribe(topic, options=options, properties=properties("SUBSCRIBE", **values) if values else None)
        else:
            _, number = self.client.subscribe(topic, qos, properties=properties("SUBSCRIBE", **values) if values else None)
        return until(lambda: self.acks.get(number), "SUBACK")

    def unsubscribe(self, topic):
        _, number = self.client.unsubscribe(topic)
        until(lambda: number in self.acks, "UNSUBACK")

    def take(self, count=1):
        """The next messages, in order."""
        with self.arrived:
            end = time.monotonic() + DEADLINE
            while len(self.messages) < count:
                assert self.arrived.wait(max(0, end - time.monotonic())), f"{len(self.messages)} of {count} messages came"
            taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def payloads(self, count=1):
        return [message.payload.decode() for message in self.take(count)]

    def nothing(self):
        """Nothing more comes: a message to itself is the next."""
        mark = fresh("mark")
        self.subscribe(mark)
        self.publish(mark)
        got = self.take()[0]
        assert got.topic == mark, f"wanted nothing, got {got.topic} {got.payload!r}"
        self.unsubscribe(mark)

    def crash(self):
        """The network connection breaks without a DISCONNECT."""
        self.client.on_disconnect = None
        self.client._sock_close()
        self.client.loop_stop()

    def leave(self, reason=None, **values):
        """DISCONNECT."""
        from paho.mqtt.reasoncodes import ReasonCode

        if self.version == "5":
            code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason) if reason else None
            self.client.disconnect(code, properties("DISCONNECT", **values) if values else None)
        else:
            self.client.disconnect()
        until(lambda: self.left, "the end of the connection")
        self.client.loop_stop()


warnings.filterwarnings("ignore", category=DeprecationWarning)
