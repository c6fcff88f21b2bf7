"""JSON objects read strictly, their members kept as they were written: 0.10 stays 0.10."""

from __future__ import annotations

import msgspec

_ANY = msgspec.json.Decoder()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members(raw: bytes) -> dict[str, msgspec.Raw]:
    """The members of the JSON object `raw`; of two with one name the last.

    Raises:
        ValueError: it is no JSON object, with the reason.
    """
    try:
        # Raw members are only skimmed; the first decoding finds bad UTF-8 and numbers out of range inside them.
        _ANY.decode(raw)
        return _MEMBERS.decode(raw)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason}") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"it is no usable JSON object: {error}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def text(value: msgspec.Raw | None) -> str | None:
    """A member as text: a string as it is, an integer in digits; None if it is neither."""
    found = None if value is None else _ANY.decode(value)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else None
