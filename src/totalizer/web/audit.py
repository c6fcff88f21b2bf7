"""What somebody changed by the API, in the log: who, of which organisation, and what."""

from __future__ import annotations

from typing import Any, Protocol

from totalizer.telemetry import logger


class Who(Protocol):
    """Somebody who may change something, whichever way they came: as a principal, or signed in to the page."""

    @property
    def organization_id(self) -> str:
        """Whose data they may touch."""

    @property
    def key_id(self) -> str | None:
        """The API key, if they came with one."""

    @property
    def user_id(self) -> str | None:
        """The token's subject, if they came with one."""

    @property
    def role(self) -> str | None:
        """The token's role."""


def note(principal: Who, done: str, **what: Any) -> None:
    """Log a change, after it is made.

    Args:
        principal: who made it; named by the API key's id, or by the token's subject and role.
        done: such as `API key revoked`.
        what: further members of the line. Never a key or a token itself.
    """
    who = {"by_key": principal.key_id, "by_user": principal.user_id, "by_role": principal.role}
    named = {name: value for name, value in who.items() if value is not None}
    logger().info(done, organization=principal.organization_id, **named, **what)
