"""The recovery daemon: brings failed batches to their target, watches over the whole, and tidies up.

Start with `daemon.CronRecoveryDaemon`. What it needs beside the client (`totalizer[daemon]`) is imported when used.
"""

from totalizer.edge.daemon.channels import Alert, Channel
from totalizer.edge.daemon.cleanup import Cleanup, CleanupResult
from totalizer.edge.daemon.daemon import CronRecoveryDaemon
from totalizer.edge.daemon.health import HealthStatus
from totalizer.edge.daemon.lock import DAEMON_LOCK, holder
from totalizer.edge.daemon.metrics import DaemonMetrics, ExportedMetrics, RecoveryMetrics
from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.daemon.recovery import RecoveryResult, Reprocessed
from totalizer.edge.daemon.scan import ScannedBatch

__all__ = [
    "Alert", "Channel", "Cleanup", "CleanupResult", "CronRecoveryDaemon", "DAEMON_LOCK", "DaemonMetrics",
    "DaemonOptions", "ExportedMetrics", "HealthStatus", "RecoveryMetrics", "RecoveryResult", "Reprocessed",
    "ScannedBatch", "holder",
]  # fmt: skip
