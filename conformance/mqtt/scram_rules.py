"""Enhanced authentication of 5.0: SCRAM-SHA-256 (RFC 5802, RFC 7677) in AUTH packets, at first and again."""

import base64
import hashlib
import hmac
import os

from rawmqtt import codec
from rawmqtt.client import Raw
from rawmqtt.codec import AUTH, CONNACK, DISCONNECT
from rules import V5, Client, fresh, rule, same

METHOD = ("authentication_method", "SCRAM-SHA-256")


class Scram:
    """The client's half of one exchange."""

    def __init__(self, user="guest", password="guest"):
        self.password = password
        self.bare = f"n={user},r={base64.b64encode(os.urandom(18)).decode()}"
        self.first = f"n,,{self.bare}".encode()

    def final(self, challenge):
        text = challenge.decode()
        parts = dict(part.split("=", 1) for part in text.split(","))
        assert parts["r"].startswith(self.bare.split(",r=")[1]), "the server's nonce extends ours"
        assert int(parts["i"]) >= 4096, "RFC 7677 asks for 4096 rounds"
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without = f"c=biws,r={parts['r']}"
        message = f"{self.bare},{text},{without}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.verifier = b"v=" + base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256"))
        return f"{without},p={base64.b64encode(proof).decode()}".encode()


def _begin(raw, scram, **options):
    raw.send(codec.connect(V5, options.pop("client_id", fresh()), properties=[METHOD, ("authentication_data", scram.first)], **options))
    found = raw.expect(AUTH)
    same((found.reason, found.get("authentication_method")), (0x18, METHOD[1]))
    return found.get("authentication_data")


def _login(raw, **options):
    scram = Scram()
    final = scram.final(_begin(raw, scram, **options))
    raw.send(codec.auth(0x18, [METHOD, ("authentication_data", final)]))
    found = raw.packet()
    if found.kind == AUTH:  # the server's proof may come before the end, too
        raw.send(codec.auth(0x18, [METHOD]))
        found = raw.expect(CONNACK)
    same((found.kind, found.reason, found.get("authentication_method")), (CONNACK, 0, METHOD[1]))
    same(found.get("authentication_data"), scram.verifier, "the server's signature")


@rule(v5="4.12.0-2 4.12.0-3 4.12.0-5 3.15.2-1 3.2.0-1")
def scram_lets_in(version):
    with Raw(version) as raw:
        _login(raw)
        raw.send(codec.PING)
        raw.expect(codec.PINGRESP)


@rule(v5="4.12.0-4")
def scram_with_a_wrong_password_is_refused(version):
    for scram in (Scram(password="wrong"), Scram(user="nobody")):
        with Raw(version) as raw:
            final = scram.final(_begin(raw, scram))
            raw.send(codec.auth(0x18, [METHOD, ("authentication_data", final)]))
            found = raw.expect(CONNACK)
            assert found.reason in (0x86, 0x87), hex(found.reason)
            raw.ended()


@rule(v5="4.12.0-5 4.12.0-2 3.1.2-30")
def scram_answered_by_something_else_ends_the_connection(version):
    for data in (
        codec.auth(0x18, [("authentication_method", "OTHER"), ("authentication_data", b"x")]),
        codec.auth(0x19, [METHOD, ("authentication_data", b"x")]), codec.publish(V5, "t", b"x"), codec.PING,
        codec.auth(0x18, [METHOD, ("authentication_data", b"\xff\xfenonsense")]),
    ):  # fmt: skip
        with Raw(version) as raw:
            _begin(raw, Scram())
            raw.send(data)
            kinds = []
            try:
                while True:
                    found = raw.packet()
                    kinds.append(found.kind)
                    assert not (found.kind == CONNACK and found.reason == 0)
            except Exception as end:
                assert type(end).__name__ == "Closed", end
            assert DISCONNECT not in kinds, "no DISCONNECT before CONNACK"


@rule(v5="4.12.1-1 4.12.0-5")
def scram_again_on_a_running_connection(version):
    topic = fresh()
    with Raw(version) as raw:
        _login(raw)
        raw.send(codec.subscribe(V5, 1, [(topic, 0)]))
        raw.expect(codec.SUBACK)
        scram = Scram()
        raw.send(codec.auth(0x19, [METHOD, ("authentication_data", scram.first)]))
        found = raw.expect(AUTH)
        same(found.reason, 0x18)
        Client(V5).publish(topic, b"goes on", qos=1)  # the connection works meanwhile
        same(raw.expect(codec.PUBLISH).payload, b"goes on")
        raw.send(codec.auth(0x18, [METHOD, ("authentication_data", scram.final(found.get("authentication_data")))]))
        found = raw.expect(AUTH)
        same((found.reason, found.get("authentication_method")), (0, METHOD[1]))


@rule(v5="4.12.1-2 4.12.1-1")
def scram_again_gone_wrong_ends_the_connection(version):
    with Raw(version) as raw:
        _login(raw)
        scram = Scram(password="wrong")
        raw.send(codec.auth(0x19, [METHOD, ("authentication_data", scram.first)]))
        final = scram.final(raw.expect(AUTH).get("authentication_data"))
        raw.send(codec.auth(0x18, [METHOD, ("authentication_data", final)]))
        raw.ended((0x86, 0x87))
    with Raw(version) as raw:
        _login(raw)
        raw.send(codec.auth(0x19, [("authentication_method", "OTHER"), ("authentication_data", b"x")]))
        raw.ended((0x82, 0x8C))
