"""One simulated device: python device.py NUMBER

It keeps its state as a retained message, has a will that says when it is gone, publishes a reading every second, and
carries out commands that it is asked for by request and response. Its session outlives its connection, so a command
sent while it is away is not lost.
"""

import json
import os
import random
import signal
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, _, PORT = os.environ.get("MQTT_ADDRESS", "127.0.0.1:1883").rpartition(":")
PERIOD = float(os.environ.get("FLEET_PERIOD", "1"))
number = sys.argv[1]
name = f"fleet-device-{number}"
state = f"fleet/{number}/state"
commands = f"fleet/{number}/command"
stop = threading.Event()
settings = {"target": 20.0}


def properties(kind, **values):
    """MQTT 5.0 properties of one packet type."""
    made = Properties(kind)
    for key, value in values.items():
        setattr(made, key, value)
    return made


def connected(client, _userdata, flags, reason, _properties):
    if reason.is_failure:
        print(name, "was refused:", reason, flush=True)
        return stop.set()
    # The session may have kept the subscription; subscribing again changes nothing.
    client.subscribe(commands, qos=2)
    # Retained: whoever comes later learns it, too.
    client.publish(state, json.dumps({"online": True, **settings}), qos=1, retain=True)
    print(name, "resumes" if flags.session_present else "starts", flush=True)


def commanded(client, _userdata, message):
    """Does what is asked and answers where the request says."""
    command = json.loads(message.payload)
    settings.update(command)
    client.publish(state, json.dumps({"online": True, **settings}), qos=1, retain=True)
    asked = message.properties
    if hasattr(asked, "ResponseTopic"):
        # The correlation data tells the asker which of its requests this is about.
        answer = properties(PacketTypes.PUBLISH, CorrelationData=asked.CorrelationData)
        client.publish(asked.ResponseTopic, json.dumps({"device": number, "done": command}), qos=1, properties=answer)
    print(name, "did", command, flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
client.on_connect, client.on_message = connected, commanded
client.reconnect_delay_set(min_delay=1, max_delay=10)
# Published by the broker when this process ends without a word; with a delay, a short break of the network says nothing.
client.will_set(
    state, json.dumps({"online": False}), qos=1, retain=True, properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=1)
)
client.connect(HOST, int(PORT), keepalive=10, clean_start=False, properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=3600))
client.loop_start()

signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGINT, lambda *_: stop.set())
while not stop.wait(PERIOD):
    reading = settings["target"] + random.uniform(-1, 1)
    # A reading is worth nothing after ten seconds, so it is not kept longer for anyone.
    short_lived = properties(PacketTypes.PUBLISH, MessageExpiryInterval=10, ContentType="text/plain")
    client.publish(f"fleet/{number}/temperature", f"{reading:.1f}", qos=0, properties=short_lived)

# An orderly goodbye publishes no will, so the device says itself that it goes.
client.publish(state, json.dumps({"online": False}), qos=1, retain=True).wait_for_publish(5)
client.disconnect()
client.loop_stop()
