"""The channels of the rules: addresses by the name that rules have for them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from totalizer.edge.daemon.channels import Alert, AppriseChannel, Channel
from totalizer.health.config import CRITICAL_CHANNEL, DEFAULT_CHANNEL, HealthConfig
from totalizer.telemetry import logger


@dataclass(frozen=True)
class Grouped:
    """One address of a channel.

    Attributes:
        group: the channel's name.
        inner: the way to the address.
    """

    group: str
    inner: Channel

    @property
    def name(self) -> str:
        """The same after a restart, and no secret."""
        return f"{self.group}:{self.inner.name}"

    @property
    def least(self) -> str:
        """The least severe of the alerts that it takes."""
        return self.inner.least

    def send(self, alert: Alert) -> bool:
        """Pass an alert on; False if it could not be. Blocks, for a bounded time."""
        return self.inner.send(alert)


class LoggedAlerts:
    """Writes alerts to the structured log, always."""

    name, least = "log", "info"

    def send(self, alert: Alert) -> bool:
        """Write it down."""
        tell = {"info": logger().info, "warning": logger().warning, "critical": logger().error}[alert.severity]
        tell("alert", severity=alert.severity, key=alert.key, message=alert.message, **alert.details)
        return True


def channels_of(config: HealthConfig, urls: str, critical_urls: str) -> list[Grouped]:
    """The channels that rules can name.

    Args:
        config: with the channels of the file.
        urls: of the channel `default`, separated by spaces. Secret.
        critical_urls: of the channel `critical`. Secret.

    Raises:
        ConfigurationError: apprise does not know such an address, or is not installed.
    """
    about = f"Totalizer on {socket.gethostname()}"
    found = _grouped("TOTALIZER_ALERT_URLS", DEFAULT_CHANNEL, urls.split(), "info", about)
    found += _grouped("TOTALIZER_ALERT_URLS_CRITICAL", CRITICAL_CHANNEL, critical_urls.split(), "critical", about)
    for name, channel in config.channels.items():
        found += _grouped(f"channels.{name}.urls", name, channel.urls, channel.least, about)
    return found


def _grouped(option: str, group: str, urls: Iterable[str], least: str, about: str) -> list[Grouped]:
    return [Grouped(group, AppriseChannel(f"{option}[{place}]", url, least, about)) for place, url in enumerate(urls)]
