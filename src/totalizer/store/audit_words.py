"""Entries of the audit trail as people read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

#: Longest text of a value; documents of the catalog are long.
VALUE_LENGTH_MAX: Final = 80
#: Members of rows that stand elsewhere in the entry, or never tell what was changed.
_SAID: Final = frozenset({"id", "organization_id", "created_at", "made_at"})
_KINDS: Final = {"api_key": "API key", "token": "token", "command_line": "command line", "database": "database role"}


def who(actor: Mapping[str, str]) -> str:
    """Who made a change, such as `API key nightly (2d8f…)` or `command line alice`."""
    kind, known, name = _KINDS.get(actor["kind"], actor["kind"]), actor.get("id", ""), actor.get("name")
    if name is not None:
        return f"{kind} {name} ({known[:8]}…)"
    role = f" ({actor['role']})" if "role" in actor else ""
    return f"{kind} {known}".rstrip() + role


def what(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What a change changed: `member: before → after` of those that differ, or the members of what is new or gone."""
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return ", ".join(f"{name}: {_value(before.get(name))} → {_value(after.get(name))}" for name in names)
    row = after if after is not None else before
    shown = ((name, value) for name, value in (row or {}).items() if value is not None and name not in _SAID)
    text = ", ".join(f"{name}: {_value(value)}" for name, value in shown)
    return f"gone: {text}" if after is None and before is not None else text


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[: VALUE_LENGTH_MAX - 1]}…"
