"""Watches the fleet: python dashboard.py

It prints a line for each change of a device's state. Started late, it learns the state of every device at once, because
states are retained.
"""

import json
import os

import paho.mqtt.client as mqtt

HOST, _, PORT = os.environ.get("MQTT_ADDRESS", "127.0.0.1:1883").rpartition(":")
readings = {}


def connected(client, _userdata, _flags, _reason, _properties):
    client.subscribe([("fleet/+/state", 1), ("fleet/+/temperature", 0)])


def changed(_client, _userdata, message):
    _, number, what = message.topic.split("/")
    if what == "temperature":
        readings[number] = float(message.payload)
        if len(readings) % 10 == 0:
            print(f"{len(readings)} devices report {sum(readings.values()) / len(readings):.1f} °C on average", flush=True)
    else:
        state = json.loads(message.payload)
        known = "was" if message.retain else "is"
        print(f"device {number} {known} {'online' if state['online'] else 'offline'}", flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect, client.on_message = connected, changed
client.connect(HOST, int(PORT))
try:
    client.loop_forever()
except KeyboardInterrupt:
    client.disconnect()
