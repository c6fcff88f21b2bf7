"""What the processes on this data folder measure, for Prometheus."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get

from totalizer.errors import Refusal, Refused
from totalizer.metrics import metrics_text
from totalizer.metrics.shown import MEDIA_TYPE
from totalizer.web.described import run as answers
from totalizer.web.described.operation import described


class MetricsServices(msgspec.Struct, frozen=True):
    """What the route works with.

    Attributes:
        folder: of the processes' numbers; None to serve none.
        token: what is wanted as Bearer token; None to serve anybody.
    """

    folder: Path | None
    token: str | None


def metrics_routes(services: MetricsServices) -> list[Any]:
    """The route; none if nothing is measured."""
    folder, token = services.folder, services.token
    if folder is None:
        return []

    @get(
        "/metrics", summary="What the service measures, for Prometheus", sync_to_thread=True, media_type="text/plain",
        **described(answers.HEALTH_TAG, None, answers.METRICS),
    )  # fmt: skip
    def metrics(request: Request[Any, Any, Any]) -> Response[str]:
        """The sum of all processes on this machine's data folder; no organisation is named."""
        if token is not None and not _is(request.headers.get("authorization"), token):
            raise Refused(Refusal.UNAUTHENTICATED, "send TOTALIZER_METRICS_TOKEN as Bearer token")
        return Response(metrics_text(folder), media_type=MEDIA_TYPE)

    return [metrics]


def _is(authorization: str | None, token: str) -> bool:
    scheme, _, given = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
