"""A Flask application whose requests are metered. Start: gunicorn --preload --workers 2 flask_app:app"""

import os
import time

from flask import Flask

from totalizer.edge import HttpSink, SmartBatchAggregator

app = Flask(__name__)
# Made once, before gunicorn forks: each worker gets a journal and a connection of its own with its first entry.
aggregator = SmartBatchAggregator(
    sink=HttpSink(os.environ["TOTALIZER_URL"], os.environ["TOTALIZER_API_KEY"]), max_age_ms=2000
)


@app.put("/users/<user>/orders/<order>")
def put_order(user: str, order: str) -> tuple[str, int]:
    """Take an order; when the caller hears 204, its entry is on this machine's disk."""
    # The order's own number as id: a request that is repeated, since its answer got lost, counts once.
    aggregator.add({
        "id": f"order-{order}", "userId": user, "action": "order", "timestamp": time.time_ns() // 1_000_000,
    })  # fmt: skip
    return "", 204
