"""Deliver all failed batches of a folder, and tell by how many bytes that raised this process' memory at its peak."""

from __future__ import annotations

import resource
import sys

from totalizer.edge.batch import Batch
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.sinks.sink import Delivery


class NullSink:
    """Takes everything and keeps nothing."""

    name = "nothing"

    def deliver(self, batch: Batch) -> Delivery:
        return Delivery(len(batch.entries))

    def close(self) -> None:
        """Nothing is held open."""


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    daemon = CronRecoveryDaemon(data_path=sys.argv[1], sink=NullSink(), log_level="error")
    before = peak_bytes()
    result = daemon.reprocess_failed_batches()
    sys.stdout.write(f"{result.succeeded} {peak_bytes() - before}")
