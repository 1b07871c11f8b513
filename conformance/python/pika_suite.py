"""pika, the most used Python client, through everything its users rely on."""

import pika_delivery  # noqa: F401  (registers its checks)
import pika_queues  # noqa: F401
import pika_routing  # noqa: F401
import pika_survival  # noqa: F401
from check import run

if __name__ == "__main__":
    run()
