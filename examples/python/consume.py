"""Receives orders and acknowledges each after its work is done: python consume.py [HOW_MANY]"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
how_many = int(sys.argv[1]) if len(sys.argv) > 1 else None

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.queue_declare("orders", durable=True)
# At most ten messages are with us unacknowledged; the others wait for whoever is free.
channel.basic_qos(prefetch_count=10)

done = 0
for method, properties, body in channel.consume("orders"):
    print("received", body.decode(), flush=True)
    # Were we to die before this line, the order would go to another consumer.
    channel.basic_ack(method.delivery_tag)
    done += 1
    if done == how_many:
        break

channel.cancel()  # what we have not acknowledged goes back to the queue
connection.close()
