"""A real Celery worker: tasks, results, retries, ETA, remote control, prefetch changes."""

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery import chain, group
from celery.exceptions import TaskRevokedError
from celery_app import add, app, broken, flaky, forgotten, late, nap, stamp
from check import check, control, run, same, until

SECONDS = 30
worker = None


class Worker:
    """A worker process with two slots."""

    def __init__(self):
        self.log = open(Path(os.environ["SCRATCH"]) / "worker.log", "ab")
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--loglevel=INFO", "--hostname=w@conformance",
                   "--autoscale=4,2", "--queues=celery,urgent", "--events"]  # fmt: skip
        self.process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=self.log, stderr=self.log)
        until(self.answers, "the worker to answer a ping", lambda: time.sleep(0.1))

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError("the worker ended:\n" + (Path(os.environ["SCRATCH"]) / "worker.log").read_text()[-2000:])
        return app.control.ping(timeout=0.5)

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the worker did not stop warmly") from None


@check
def worker_starts_and_answers_ping():
    global worker
    worker = Worker()
    same(app.control.ping(timeout=2), [{"w@conformance": {"ok": "pong"}}])


@check
def task_with_result():
    same(add.delay(2, 3).get(timeout=SECONDS), 5)


@check
def a_hundred_tasks_with_results():
    results = [add.delay(i, i) for i in range(100)]
    same([result.get(timeout=SECONDS) for result in results], [2 * i for i in range(100)])


@check
def group_and_chain():
    same(group(add.s(i, 1) for i in range(10)).apply_async().get(timeout=SECONDS), list(range(1, 11)))
    same(chain(add.s(1, 2), add.s(10), add.s(100))().get(timeout=SECONDS), 113)


@check
def failing_task_brings_its_exception():
    try:
        broken.delay().get(timeout=SECONDS)
        raise AssertionError("no exception")
    except ValueError as error:
        same(str(error), "as asked")


@check
def task_is_retried():
    same(flaky.delay(2).get(timeout=SECONDS), 2)


@check
def countdown_and_eta_are_waited_for():
    start = time.time()
    soon = stamp.apply_async(countdown=1)
    later = stamp.apply_async(eta=datetime.now(UTC) + timedelta(seconds=1.5))
    assert soon.get(timeout=SECONDS) - start >= 1, "the countdown was not waited for"
    assert later.get(timeout=SECONDS) - start >= 1.4, "the ETA was not waited for"


@check
def more_eta_tasks_than_the_prefetch_leave_room_for_others():
    # Each ETA task a worker holds widens its window by a basic.qos on the running consumer.
    waiting = [stamp.apply_async(countdown=3) for _ in range(30)]
    same(add.apply_async((1, 1)).get(timeout=SECONDS), 2)
    for result in waiting:
        result.get(timeout=SECONDS)


@check
def expired_task_is_not_run():
    result = add.apply_async((1, 1), expires=datetime.now(UTC) - timedelta(seconds=5))
    try:
        result.get(timeout=SECONDS)
        raise AssertionError("it ran")
    except TaskRevokedError:
        pass


@check
def revoked_task_is_not_run():
    result = add.apply_async((1, 1), countdown=2)
    result.revoke()
    try:
        result.get(timeout=SECONDS)
        raise AssertionError("it ran")
    except TaskRevokedError:
        pass


@check
def priority_queue_takes_tasks():
    same(add.apply_async((4, 5), queue="urgent", priority=5).get(timeout=SECONDS), 9)


@check
def inspection_sees_the_worker():
    inspect = app.control.inspect(timeout=2)
    same(list(inspect.active_queues()), ["w@conformance"])
    assert "celery_app.add" in inspect.registered()["w@conformance"]
    same([queue["name"] for queue in inspect.active_queues()["w@conformance"]], ["celery", "urgent"])


@check
def autoscaling_changes_the_pool_and_the_prefetch():
    def pool():
        return app.control.inspect(timeout=2).stats()["w@conformance"]["pool"]["max-concurrency"]

    app.control.autoscale(max=6, min=3, destination=["w@conformance"], reply=True)
    app.control.pool_grow(2, destination=["w@conformance"], reply=True, timeout=2)
    stats = app.control.inspect(timeout=2).stats()["w@conformance"]
    assert stats["prefetch_count"] > 0, stats["prefetch_count"]
    same([r.get(timeout=SECONDS) for r in [nap.delay(0.2) for _ in range(12)]], ["rested"] * 12)
    assert pool() >= 1


@check
def consumers_are_added_and_cancelled_by_remote_control():
    name = f"extra-{os.getpid()}"
    app.control.add_consumer(name, destination=["w@conformance"], reply=True, timeout=2)
    same(add.apply_async((1, 2), queue=name).get(timeout=SECONDS), 3)
    app.control.cancel_consumer(name, destination=["w@conformance"], reply=True, timeout=2)


@check
def purge_counts_the_waiting_tasks():
    app.control.cancel_consumer("celery", destination=["w@conformance"], reply=True, timeout=2)
    for _ in range(5):
        forgotten.delay()
    same(app.control.purge() >= 5, True)
    app.control.add_consumer("celery", destination=["w@conformance"], reply=True, timeout=2)
    same(add.delay(1, 1).get(timeout=SECONDS), 2)


@check
def events_reach_a_monitor():
    from celery.events import EventReceiver

    seen = set()

    def capture():
        with app.connection() as connection:
            receiver = EventReceiver(connection, handlers={"*": lambda event: seen.add(event["type"])}, app=app)
            try:
                receiver.capture(limit=None, timeout=SECONDS, wakeup=False)
            except OSError:
                pass  # the suite ended first

    threading.Thread(target=capture, daemon=True).start()
    wanted = {"task-received", "task-started", "task-succeeded"}
    until(lambda: wanted <= seen, f"{wanted}", lambda: same(add.delay(3, 3).get(timeout=SECONDS), 6))


@check
def late_acknowledged_task():
    same(late.delay().get(timeout=SECONDS), False)


@check
def worker_and_results_survive_kill_9_of_the_broker():
    control("kill")

    def back():
        try:
            return app.control.ping(timeout=1)
        except OSError:  # the client's own connections have to notice, too
            return None

    until(back, "the worker to come back", lambda: time.sleep(0.2))
    same(add.delay(20, 22).get(timeout=SECONDS), 42)


@check
def worker_stops_warmly():
    same(worker.stop(), 0)


if __name__ == "__main__":
    try:
        run()
    finally:
        if worker and worker.process.poll() is None:
            worker.process.kill()
