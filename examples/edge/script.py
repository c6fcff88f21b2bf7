"""Sends what it did from a script. Killed at any point and started again, every entry counts once."""

import os
import time

from totalizer.edge import HttpSink, SmartBatchAggregator

sink = HttpSink(os.environ["TOTALIZER_URL"], os.environ["TOTALIZER_API_KEY"])

with SmartBatchAggregator(sink=sink) as aggregator:
    for number in range(200):
        started = time.time_ns()
        # … the work …
        aggregator.add({
            "id": f"report-2025-09/{number}",
            "userId": "ada",
            "action": "report",
            "timestamp": started // 1_000_000,
            "metadata": {"taskId": f"page-{number}", "duration": (time.time_ns() - started) // 1_000_000},
        })  # fmt: skip
