"""Passwords of database roles. Apart from the roles' SQL, for a supervisor that must not load a database driver."""

from __future__ import annotations

import hashlib
import hmac


def password_for(secret: str, role: str) -> str:
    """The password of a role: HMAC-SHA256 of its name under the installation's secret, in hexadecimal."""
    return hmac.new(secret.encode(), b"database role " + role.encode(), hashlib.sha256).hexdigest()
