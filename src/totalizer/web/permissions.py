"""Who may do what: one table for the roles of tokens and the scopes of API keys (docs/reference/access.md)."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

#: Everything that can be allowed, and what it lets somebody do. A route asks for exactly one of them.
ACTIONS: Final = MappingProxyType(
    {
        "ingest": "send events, track usage, start and end sessions",
        "query": "ask for totals and usage, read the catalog",
        "receipts": "ask what became of what was sent",
        "export": "take data out in bulk",
        "quarantine_read": "see dead letters",
        "quarantine_replay": "try dead letters again, drop them",
        "keys": "list, create, rotate and revoke the organisation's API keys",
        "jobs_read": "see the scheduled jobs and their runs",
        "jobs_run": "ask for a run of a job",
        "alerts_read": "see alerts, their history and what is silenced",
        "alerts_silence": "silence alerts",
        "audit_read": "see who changed what",
    }
)
#: The role in a token → what it may do. Each may do what the one before it may.
ROLES: Final = MappingProxyType(
    {
        "viewer": frozenset({"query"}),
        "developer": frozenset({"query", "ingest", "receipts"}),
        "manager": frozenset({"query", "ingest", "receipts", "export", "quarantine_read", "jobs_read", "alerts_read"}),
        "admin": frozenset(ACTIONS),
    }
)
#: The scope of an API key → what it may do. Scopes add up.
SCOPES: Final = MappingProxyType(
    {
        # Who may send may also ask what became of it: a sender needs no second key for that.
        "ingest": frozenset({"ingest", "receipts"}),
        "query": frozenset({"query"}),
        "export": frozenset({"export"}),
        "quarantine": frozenset({"quarantine_read", "jobs_read", "alerts_read"}),
        "admin": frozenset(ACTIONS),
    }
)


def actions_of_role(role: str) -> frozenset[str]:
    """What a role may do; nothing, if there is no such role."""
    return ROLES.get(role, frozenset())


def actions_of_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """What a key with these scopes may do; a scope of a later version allows nothing here."""
    return frozenset[str]().union(*(SCOPES.get(scope, frozenset()) for scope in scopes))
