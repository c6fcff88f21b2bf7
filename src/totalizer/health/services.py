"""Checks of what everything else needs: database, Redis, clock, disk, memory, journals, batches."""

from __future__ import annotations

from totalizer.edge.daemon.findings import DISK_BYTES_CRITICAL, DISK_BYTES_WARNING
from totalizer.health.check import CRITICAL, OK, UNKNOWN, WARNING, Judgement, Levels, of_database, unknown
from totalizer.health.facts import DatabaseFacts, Facts


def database(facts: Facts, levels: Levels) -> Judgement:
    """It answers, and soon."""
    answer = facts.database
    if answer.facts is None:
        return Judgement(CRITICAL, None, f"the database {answer.problem}")
    return Judgement(levels.status(answer.took_ms), answer.took_ms, f"answered after {answer.took_ms:.0f} ms")


@of_database
def connections(found: DatabaseFacts, levels: Levels) -> Judgement:
    """There are sessions left."""
    part = found.connections / max(found.connections_max, 1)
    message = f"{found.connections} of {found.connections_max} sessions are in use"
    return Judgement(levels.status(part), part, message)


def redis(facts: Facts, levels: Levels) -> Judgement:
    """It answers, if there is one. Nothing is lost without it, so this is no more than a warning."""
    if facts.redis in ("ok", "not configured"):
        return Judgement(OK, None, facts.redis)
    return Judgement(WARNING, None, f"Redis {facts.redis}: limits are counted by each process for itself")


def clock_skew(facts: Facts, levels: Levels) -> Judgement:
    """This machine and the database agree about the time."""
    skew = facts.database.skew_s
    if skew is None:
        return unknown(facts)
    apart = abs(skew)
    way = "ahead of" if skew > 0 else "behind"
    return Judgement(levels.status(apart), apart, f"this machine's clock is {apart:.2f} s {way} the database's")


def disk(facts: Facts, levels: Levels) -> Judgement:
    """There is room where the journals are. Little is what is less than both a part and an amount."""
    if facts.machine is None or facts.machine.disk_space is None:
        return Judgement(CRITICAL, None, "the data folder cannot be looked at: is its disk there?")
    space = facts.machine.disk_space
    part = space.available / space.total if space.total else 0.0
    status = levels.status(part)
    if status == CRITICAL and space.available >= DISK_BYTES_CRITICAL:
        status = WARNING
    if status == WARNING and space.available >= DISK_BYTES_WARNING:
        status = OK
    return Judgement(status, part, f"{space.available >> 20} MiB are left on the disk of the data folder, {part:.1%}")


def memory(facts: Facts, levels: Levels) -> Judgement:
    """There is memory left, of the machine or of the container's share."""
    if facts.machine is None or not facts.machine.memory_usage.total:
        return Judgement(UNKNOWN, None, "the system does not tell its memory")
    usage = facts.machine.memory_usage
    part = usage.used / usage.total
    return Judgement(levels.status(part), part, f"{part:.0%} of the memory is in use")


def journal_quota(facts: Facts, levels: Levels) -> Judgement:
    """The fullest journal has room: when its quota is reached, no events are taken."""
    if facts.journals is None:
        return Judgement(CRITICAL, None, "the journals cannot be looked at")
    part = max((one.bytes_on_disk for one in facts.journals), default=0) / max(facts.quota_bytes, 1)
    return Judgement(levels.status(part), part, f"the fullest journal takes {part:.0%} of its quota")


def batches(facts: Facts, levels: Levels) -> Judgement:
    """The batching library on this machine delivers."""
    severity, issues = facts.batches
    if not issues:
        return Judgement(OK, None, "no issues")
    return Judgement(CRITICAL if severity == "critical" else WARNING, float(len(issues)), "; ".join(issues[:3]))
