"""Checks of the way of events: from the journals into the database, and into the rollups."""

from __future__ import annotations

from totalizer.health.check import OK, UNKNOWN, Judgement, Levels, of_database, unknown
from totalizer.health.facts import DatabaseFacts, Facts

#: Of fewer events than this, a few refused ones say nothing about the rest.
EVENTS_MIN = 20


def loader_lag(facts: Facts, levels: Levels) -> Judgement:
    """What is acknowledged gets into the database."""
    if facts.journals is None or any(one.behind_s is None for one in facts.journals):
        return unknown(facts) if facts.database.facts is None else Judgement(UNKNOWN, None, "a journal cannot be read")
    behind = max((one.behind_s or 0.0 for one in facts.journals), default=0.0)
    if not behind:
        return Judgement(OK, 0.0, "all that was acknowledged here is loaded")
    return Judgement(levels.status(behind), behind, f"the oldest event that is not loaded waits for {behind:.0f} s")


@of_database
def rollup_lag(found: DatabaseFacts, levels: Levels) -> Judgement:
    """What is loaded gets into the rollups."""
    waits = found.oldest_mark_s or 0.0
    message = f"{found.marks} buckets wait, the oldest for {waits:.0f} s" if found.marks else "no bucket waits"
    return Judgement(levels.status(waits), waits, message)


@of_database
def success_rate(found: DatabaseFacts, levels: Levels) -> Judgement:
    """The database takes what was acknowledged."""
    if found.accepted_hour < EVENTS_MIN:
        return Judgement(OK, None, f"{found.accepted_hour} events in the last hour are too few to tell")
    rate = max(0.0, 1 - found.dead_lettered_hour / found.accepted_hour)
    return Judgement(levels.status(rate), rate, f"{rate:.1%} of the events of the last hour were stored")


def processing_time(facts: Facts, levels: Levels) -> Judgement:
    """Senders get their answers soon."""
    mean = facts.api.processing_ms
    if mean is None:
        return Judgement(OK, None, "no events were sent in the last minute")
    return Judgement(levels.status(mean), mean, f"events were acknowledged after {mean:.1f} ms on average")


def query_time(facts: Facts, levels: Levels) -> Judgement:
    """Who asks gets answers soon."""
    mean = facts.api.answering_ms
    if mean is None:
        return Judgement(OK, None, "nobody asked in the last minute")
    return Judgement(levels.status(mean), mean, f"queries were answered after {mean:.1f} ms on average")


@of_database
def quarantine(found: DatabaseFacts, levels: Levels) -> Judgement:
    """No dead letters come in: events that were acknowledged, and that the database refuses."""
    message = f"{found.letters_hour} dead letters in the last hour, {found.letters} wait"
    return Judgement(levels.status(found.letters_hour), float(found.letters_hour), message)


@of_database
def journal_damage(found: DatabaseFacts, levels: Levels) -> Judgement:
    """Everything in the journals could be read."""
    message = f"{found.gaps_day} stretches of journals could not be read in the last day"
    return Judgement(levels.status(found.gaps_day), float(found.gaps_day), message)


@of_database
def ledger(found: DatabaseFacts, levels: Levels) -> Judgement:
    """Every acknowledged event has one fate."""
    message = f"{found.without_fate} acknowledged events of the last two days have no fate, or two"
    return Judgement(levels.status(found.without_fate), float(found.without_fate), message)


@of_database
def partitions(found: DatabaseFacts, levels: Levels) -> Judgement:
    """The tables for the events of the coming days are there."""
    days = max(found.partition_days - 1, 0)
    return Judgement(levels.status(days), float(days), f"partitions are there for {days} days ahead")
