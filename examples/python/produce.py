"""Sends ten orders to a durable queue and waits until the broker has each on disk: python produce.py"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()

# Declaring a queue that is there already changes nothing, so producer and consumer both do it.
channel.queue_declare("orders", durable=True)

# From here on each publish returns when the broker has confirmed it, and raises if it has not.
channel.confirm_delivery()

for number in range(1, 11):
    body = f"order {number}"
    channel.basic_publish(
        exchange="",  # brings a message to the queue that its routing key names
        routing_key="orders",
        body=body,
        properties=pika.BasicProperties(delivery_mode=2, content_type="text/plain"),  # 2: keep it over a restart
        mandatory=True,  # an order that reaches no queue is an error
    )
    print("sent", body)

connection.close()
