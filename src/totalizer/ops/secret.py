"""The installation's secret: made once, kept in the data folder, never in arguments or logs."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from totalizer.errors import ConfigurationError, OperationError
from totalizer.ops.record import draft_private

#: The variable that overrides the file; machines that share a database set it alike.
SECRET_VARIABLE = "TOTALIZER_SECRET"
#: Random bytes in a secret that is made here.
SECRET_BYTES = 32


def secret_path(home: Path) -> Path:
    """Where an installation that was given no secret keeps its own."""
    return home / "secret"


def ensure_secret(home: Path, configured: str | None = None) -> str:
    """The secret from which the database passwords are derived.

    Args:
        home: data folder; made (mode 0700) when missing.
        configured: the setting, if there is one; else TOTALIZER_SECRET of the environment, else `<home>/secret`,
            which is made, mode 0600, the first time.

    Raises:
        ConfigurationError: the secret is empty.
        OperationError: the file belongs to another user.
    """
    chosen = configured if configured is not None else os.environ.get(SECRET_VARIABLE)
    if chosen is None:
        return _kept_secret(home)
    if not chosen.strip():
        raise ConfigurationError(f"{SECRET_VARIABLE} is empty; unset it or give it at least one character")
    return chosen


def _kept_secret(home: Path) -> str:
    path = secret_path(home)
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return _make_secret(path)
    except PermissionError as error:
        raise OperationError(
            f"{path} may not be read by this user; run this as its owner or choose another data folder (--home)"
        ) from error
    if not secret:
        raise ConfigurationError(f"{path} is empty; restore it or remove it to get a new one")
    return secret


def _make_secret(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_hex(SECRET_BYTES)
    draft = draft_private(path, secret + "\n")
    try:
        # A link instead of a rename: of two processes that start at once, one makes the secret and both use it.
        os.link(draft, path)
    except FileExistsError:
        return _kept_secret(path.parent)
    finally:
        draft.unlink()
    return secret
