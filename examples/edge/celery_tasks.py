"""Celery tasks that are metered. Start: celery -A celery_tasks worker --concurrency 2"""

import os
import time
from typing import Any

from celery import Celery, Task
from celery.signals import worker_process_shutdown

from totalizer.edge import HttpSink, SmartBatchAggregator

app = Celery("celery_tasks", broker=os.environ["CELERY_BROKER_URL"])
# A task whose process was killed is run again; without these two it would be gone, and its entry with it.
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
# Made once, before Celery forks its pool: each process gets a journal and a connection of its own.
aggregator = SmartBatchAggregator(
    sink=HttpSink(os.environ["TOTALIZER_URL"], os.environ["TOTALIZER_API_KEY"]), max_age_ms=2000
)


@app.task(bind=True)
def resize(self: Task, user: str) -> None:
    """Do something for a user."""
    started = time.time_ns()
    # … the work …
    duration_ms = (time.time_ns() - started) // 1_000_000
    # The task's id as the entry's: when the task is run again, it counts once.
    aggregator.add({
        "id": self.request.id, "userId": user, "action": "resize", "timestamp": started // 1_000_000,
        "metadata": {"duration": duration_ms},
    })  # fmt: skip


@worker_process_shutdown.connect
def deliver_the_rest(**_: Any) -> None:
    """Pool processes end at once, without Python's exit handlers: deliver here what waits."""
    aggregator.shutdown()
