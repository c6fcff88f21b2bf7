"""Ways in which an alert reaches people."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.needs import need
from totalizer.errors import ConfigurationError

#: Severities, the least first. `info` is for messages that something is over.
SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True)
class Alert:
    """Something that people should know.

    Attributes:
        severity: `info`, `warning` or `critical`.
        message: a sentence.
        details: further members, which JSON can hold. Without secrets.
        key: alerts with the same key are the same; by default those with the same message.
    """

    severity: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity!r}: it must be one of {', '.join(SEVERITIES)}")
        if not self.key:
            object.__setattr__(self, "key", self.message)

    @classmethod
    def of(cls, alert: Alert | Mapping[str, Any]) -> Alert:
        """An alert from a mapping of its members. ValueError or TypeError if it is none."""
        return alert if isinstance(alert, Alert) else cls(**alert)


class Channel(Protocol):
    """A way to people."""

    @property
    def name(self) -> str:
        """What the channel is called in logs and in the state of alerts: the same after a restart, no secret in it."""
        ...

    @property
    def least(self) -> str:
        """The least severe of the alerts that it takes."""
        ...

    def send(self, alert: Alert) -> bool:
        """Pass an alert on; False if it could not be. Blocks, for a bounded time."""
        ...


class LogChannel:
    """Writes alerts to the log, always."""

    name, least = "log", "info"

    def __init__(self, log: Log) -> None:
        self._log = log

    def send(self, alert: Alert) -> bool:
        """Write it down."""
        tell = {"info": self._log.info, "warning": self._log.warning, "critical": self._log.error}[alert.severity]
        details = msgspec.to_builtins(dict(alert.details), enc_hook=str)  # a caller's, so of any type
        tell("alert", severity=alert.severity, message=alert.message, details=details)
        return True


class AppriseChannel:
    """Sends alerts to an address of one of the many services that apprise knows.

    Args:
        option: the option that the address stands in, for messages.
        url: the address, a secret.
        least: the least severe of the alerts that it takes.
        about: what the alerts are about, for their titles.

    Raises:
        ConfigurationError: apprise is not installed, or does not know such an address.
    """

    def __init__(self, option: str, url: str, least: str, about: str) -> None:
        self.least, self._about = least, about
        self.name = f"{_scheme(url)}-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"
        self._apprise = need("apprise").Apprise()
        with _silence():
            known = self._apprise.add(url)
        if not known:
            raise ConfigurationError(
                f"{option}: apprise does not know such a {_scheme(url)}:// address; see its documentation for the "
                "addresses of each service"
            )

    def __repr__(self) -> str:
        return f"AppriseChannel({self.name})"

    def send(self, alert: Alert) -> bool:
        """Send it, within apprise's time limits."""
        kind = {"info": "info", "warning": "warning", "critical": "failure"}[alert.severity]
        lines = [alert.message, *(f"{name}: {value}" for name, value in alert.details.items())]
        title = f"[{alert.severity}] {self._about}"
        with _silence():
            return bool(self._apprise.notify(body="\n".join(lines), title=title, notify_type=kind))


def channels_for(urls: Iterable[str], critical_urls: Iterable[str], folder: str) -> list[Channel]:
    """The channels of the addresses in the options. Raises what `AppriseChannel` does."""
    about = f"Totalizer recovery daemon on {socket.gethostname()}, {folder}"
    told = {"alert_urls": (urls, "info"), "alert_urls_critical": (critical_urls, "critical")}
    return [
        AppriseChannel(f"{option}[{index}]", url, least, about)
        for option, (addresses, least) in told.items()
        for index, url in enumerate(addresses)
    ]


def _scheme(url: str) -> str:
    return url.partition("://")[0]


#: Set while apprise is at work. Apprise hands it on to the threads that it sends in.
_silent: ContextVar[bool] = ContextVar("totalizer_silent", default=False)


def _is_loud(record: logging.LogRecord) -> bool:
    return not _silent.get()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep apprise, and the HTTP library under it, from logging addresses, which are secrets."""
    for name in ("apprise", "urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_is_loud)  # once only, however often it is added
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
