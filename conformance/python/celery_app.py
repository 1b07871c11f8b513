"""The tasks that the Celery suite has a real worker execute."""

import time

from celery import Celery, chain, chord, group  # noqa: F401
from check import URL
from kombu import Exchange, Queue

app = Celery("conformance", broker=URL, backend="rpc://")
app.conf.update(
    task_acks_late=False,
    worker_prefetch_multiplier=2,
    result_expires=600,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_queues=[Queue("celery", Exchange("celery"), "celery"), Queue("urgent", Exchange("urgent"), "urgent", max_priority=5)],
    worker_send_task_events=True,
    task_send_sent_event=True,
)


@app.task
def add(a, b):
    """The hello world of Celery."""
    return a + b


@app.task(bind=True, max_retries=3, default_retry_delay=0.2)
def flaky(self, succeed_at):
    """Fails until its `succeed_at`th retry."""
    if self.request.retries < succeed_at:
        raise self.retry(countdown=0.2)
    return self.request.retries


@app.task
def broken():
    """Raises."""
    raise ValueError("as asked")


@app.task
def stamp():
    """When it ran."""
    return time.time()


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def late(self):
    """Acknowledged after it ran."""
    return self.request.delivery_info["redelivered"]


@app.task
def nap(seconds):
    """Takes its time."""
    time.sleep(seconds)
    return "rested"


@app.task(ignore_result=True)
def forgotten():
    """Leaves no result."""
