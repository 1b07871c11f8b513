"""Asks a device to do something and waits for its answer: python command.py NUMBER target=21.5"""

import json
import os
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, _, PORT = os.environ.get("MQTT_ADDRESS", "127.0.0.1:1883").rpartition(":")
number = sys.argv[1]
command = {key: float(value) for key, value in (word.split("=") for word in sys.argv[2:])}
answers, ready = queue.Queue(), queue.Queue()
replies = f"fleet/replies/{uuid.uuid4().hex}"

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_subscribe = lambda *_: ready.put(True)
client.on_message = lambda _client, _userdata, message: answers.put(message)
client.on_connect = lambda client, *_: client.subscribe(replies, qos=1)
client.connect(HOST, int(PORT))
client.loop_start()
ready.get(timeout=20)

request = Properties(PacketTypes.PUBLISH)
request.ResponseTopic = replies
request.CorrelationData = uuid.uuid4().bytes
# QoS 2: the device carries the command out exactly once, also when it is away for a while.
client.publish(f"fleet/{number}/command", json.dumps(command), qos=2, properties=request)
answer = answers.get(timeout=20)
assert answer.properties.CorrelationData == request.CorrelationData
print(answer.payload.decode())
client.disconnect()
client.loop_stop()
