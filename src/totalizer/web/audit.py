"""Who changes something over HTTP, as the audit trail knows them."""

from __future__ import annotations

from typing import Protocol

from totalizer.store.audit import Actor


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


def actor_of(who: Who) -> Actor:
    """Named by the API key's id, or by the token's subject and role."""
    return Actor("token", who.user_id, who.role) if who.key_id is None else Actor("api_key", who.key_id)
