"""Checks of scheduled work: it begins, it ends, it ends well, and the books that it compares agree."""

from __future__ import annotations

from collections.abc import Iterable

from totalizer.health.check import OK, WARNING, Judgement, Levels, of_database
from totalizer.health.facts import DatabaseFacts

#: Names in one message.
NAMED_MAX = 5
#: The job that aggregates the usage counters.
USAGE = "usage_aggregation"


@of_database
def jobs_overdue(found: DatabaseFacts, levels: Levels) -> Judgement:
    """Every job begins when it is due, and ends within its limit."""
    late = {job.name: max(job.late_s or 0.0, job.over_s or 0.0) for job in found.jobs}
    worst = max(late.values(), default=0.0)
    status = levels.status(worst)
    if status == OK:
        return Judgement(OK, worst, "no job is overdue" if found.jobs else "no scheduler has run yet")
    names = _named(name for name, seconds in late.items() if levels.status(seconds) != OK)
    return Judgement(status, worst, f"overdue, or longer under way than they may be, by up to {worst:.0f} s: {names}")


@of_database
def jobs_failed(found: DatabaseFacts, levels: Levels) -> Judgement:
    """No job ends badly, again and again."""
    failed = {job.name: job.failures for job in found.jobs if job.failures}
    worst = max(failed.values(), default=0)
    if not failed:
        return Judgement(OK, 0.0, "the last run of every job ended well")
    return Judgement(levels.status(worst), float(worst), f"failed up to {worst} times in a row: {_named(failed)}")


@of_database
def usage_aggregation(found: DatabaseFacts, levels: Levels) -> Judgement:
    """The usage counters are aggregated, all of them, in reasonable time."""
    job = next((each for each in found.jobs if each.name == USAGE), None)
    if job is None or job.state is None:
        return Judgement(OK, None, "usage counters have not been aggregated yet")
    alerts = {*job.alerts} - (set() if found.usage_seen else {"nothing_aggregated"})
    took = job.took_s or 0.0
    status = levels.status(took)
    if alerts and status == OK:
        status = WARNING
    told = f": {', '.join(sorted(alerts)).replace('_', ' ')}" if alerts else ""
    return Judgement(status, took, f"aggregating the usage counters took {took:.0f} s the last time{told}")


@of_database
def reconciler(found: DatabaseFacts, levels: Levels) -> Judgement:
    """What was loaded, stored and rolled up agree."""
    if found.compared_s is None:
        return Judgement(OK, None, "the books have not been compared yet")
    message = f"{found.mismatches} differences when the books were compared, {found.compared_s / 3600:.1f} hours ago"
    return Judgement(levels.status(found.mismatches), float(found.mismatches), message)


def _named(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NAMED_MAX} more" if len(listed) > NAMED_MAX else ""
    return ", ".join(listed[:NAMED_MAX]) + more
