"""What operators do about retention, on the database of a stack."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from totalizer.app import administrator_connection, dsn_of
from totalizer.catalog.retention import Retention, shown_days
from totalizer.rollup.retention import cleanup_old_data
from totalizer.settings import Settings
from totalizer.store import audit, dead_letters, retention
from totalizer.store.audit import Change
from totalizer.store.connect import connected
from totalizer.store.plan import read_applied
from totalizer.store.retention import Policy
from totalizer.store.roles import Role


class Kept(NamedTuple):
    """How long something is kept, and why.

    Attributes:
        event_type: its events and rollups.
        organization: name of whose; None: of all about which nothing else is set.
        retention: the figures that hold.
        source: `set`, `declared` in the catalog, or `usual`: as DATA_RETENTION_DAYS says.
        raw_floor: events below it are removed, or about to be; None if none are yet.
    """

    event_type: str
    organization: str | None
    retention: Retention
    source: str
    raw_floor: datetime | None

    def document(self) -> dict[str, Any]:
        """For programs."""
        days = {name: shown_days(getattr(self.retention, f"{name}_days")) for name in ("raw", "base", "hour", "day")}
        return {
            "event_type": self.event_type, "organization": self.organization, **days, "source": self.source,
            "raw_floor": self.raw_floor,
        }  # fmt: skip


def policy_of(settings: Settings) -> Policy:
    """How long things are kept about which nothing is said."""
    return Policy(settings.data_retention_days, settings.partition_retention_days)


def kept(settings: Settings, organization: str | None = None) -> list[Kept]:
    """What holds for every event type and everybody, or for one organisation.

    Raises:
        OperationError: there is no such organisation.
    """
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        owner = None if organization is None else dead_letters.organization_id_of(connection, organization)
        applied, said = read_applied(connection), retention.list_set(connection)
        floors = {(each.event_type, each.organization_id): each.raw_floor for each in retention.list_floors(connection)}
    names = {each.organization_id: each.organization for each in said}
    was_set = {(each.event_type, each.organization_id) for each in said}
    found = retention.effective(applied.event_types, said, policy_of(settings))
    if owner is not None:
        found = {(name, owner): found.get((name, owner), found[name, None]) for name in applied.event_types}
        names[owner] = organization
    return [
        Kept(
            name, names.get(whose), figures,
            "set" if {(name, whose), (name, None)} & was_set
            else "declared" if applied.event_types[name].retention else "usual",
            floors.get((name, whose), floors.get((name, None))),
        )
        for (name, whose), figures in sorted(found.items(), key=lambda item: (item[0][0], names.get(item[0][1]) or ""))
    ]  # fmt: skip


def set_retention(settings: Settings, event_type: str, organization: str | None, figures: Retention | None) -> None:
    """Say how long something is kept; None takes back what was said.

    Raises:
        OperationError: there is no such event type or organisation, or the figures do not go together.
    """
    with administrator_connection(settings) as connection:
        retention.set_retention(connection, event_type, organization, figures)


def run(settings: Settings, days: int | None) -> dict[str, Any]:
    """Remove what is older than it is to be kept; returns what `cleanup_old_data` does."""
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        # Before it begins: it works in many transactions, and may be broken off.
        audit.note(connection, Change("retention.run", "all event types", after={"days": days}))
        return cleanup_old_data(connection, days, policy=policy_of(settings))
