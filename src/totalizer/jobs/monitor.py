"""The monitor, put together from the settings."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from totalizer.app import dsn_of, gatherer_of, health_config, measure, until_stopped
from totalizer.clock import SYSTEM_CLOCK
from totalizer.settings import Settings
from totalizer.store.roles import Role

if TYPE_CHECKING:
    from totalizer.alerts.channels import Grouped
    from totalizer.alerts.monitor import Monitor


def run_monitor(settings: Settings) -> None:
    """Look after everything until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the file of rules, or an address of a channel, cannot be used.
    """
    measure(settings, "monitor")
    until_stopped(monitor_of(settings).run)


def monitor_of(settings: Settings) -> Monitor:
    """The monitor of this machine. Raises what `run_monitor` does."""
    from totalizer.alerts.book import Book
    from totalizer.alerts.monitor import Monitor

    gatherer = gatherer_of(settings, Role.REFRESHER)
    book = Book(lambda: dsn_of(settings, Role.REFRESHER), socket.gethostname(), gatherer.folder, SYSTEM_CLOCK)
    return Monitor(
        gatherer, health_config(settings), channels(settings), book,
        interval_s=settings.monitor_interval_ms / 1000, file_s=settings.health_check_interval,
    )  # fmt: skip


def channels(settings: Settings) -> list[Grouped]:
    """The channels of the settings and of the file of rules. Raises what `run_monitor` does."""
    from totalizer.alerts.channels import channels_of

    return channels_of(health_config(settings), settings.alert_urls, settings.alert_urls_critical)
