"""The Celery application: `celery -A totalizer.celery_app worker|beat|flower`.

Database and Redis are those of the environment, else those that `totalizer up` runs on the data folder.
"""

from __future__ import annotations

from functools import lru_cache

from totalizer.jobs.celery_tasks import make_app
from totalizer.ops.connection import stack_settings
from totalizer.settings import Settings


@lru_cache(maxsize=1)
def _settings() -> Settings:
    return stack_settings()


app, TASKS = make_app(_settings)
celery_app = app
