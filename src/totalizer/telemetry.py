"""Structured logs: one JSON object a line for machines, colours for a person at a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str, component: str, form: str = "auto", **more: str) -> None:
    """Log to standard error from now on.

    Args:
        level: debug, info, warning or error.
        component: the process' part (`api`, `loader`, …), on every line.
        form: json, console, or auto: console at a terminal, else json.
        more: further fields of every line.
    """
    people = sys.stderr.isatty() if form == "auto" else form == "console"
    renderer: Any = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component, **more)


def logger() -> structlog.stdlib.BoundLogger:
    """The structured logger."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())
