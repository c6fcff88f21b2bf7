"""Who a request comes from, and what is known of that for a moment."""

from __future__ import annotations

from typing import NamedTuple

from totalizer.web.limits import Meters


class Principal(NamedTuple):
    """Who a request comes from.

    Attributes:
        organization_id: whose data it may touch.
        actions: what it may do, of permissions.ACTIONS.
        meters: what its organisation may still send and ask in this window.
        title: for messages, such as `this API key` or `the role viewer`.
        key_id: the API key; None if it came with a token.
        user_id: the token's subject, if it came with one that names one.
        role: the token's role.
        expires_ns: when it ends by itself, nanoseconds since 1970 UTC; None if it does not.
    """

    organization_id: str
    actions: frozenset[str]
    meters: Meters
    title: str
    key_id: str | None = None
    user_id: str | None = None
    role: str | None = None
    expires_ns: int | None = None


class Known(NamedTuple):
    """What was found about a credential, and when (monotonic seconds). No principal: it is not valid."""

    principal: Principal | None
    checked_at: float
