"""Who an operator's psql is in the database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from totalizer.app import administrator_dsn, dsn_of
from totalizer.store.audit import command_line
from totalizer.store.roles import Role

if TYPE_CHECKING:
    from totalizer.settings import Settings

#: The part of a connection string that each variable of libpq stands for.
_VARIABLES = {
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
}


def libpq_environment(settings: Settings, role: str) -> dict[str, str]:
    """The environment that makes psql be a role. The password is nowhere else.

    Args:
        settings: which name the database.
        role: app, writer or refresher; or owner or postgres, which take the administrator's log-in.

    Raises:
        OperationError: the settings name no database, or there is no secret.
    """
    administrator = role in ("owner", "postgres")
    dsn = administrator_dsn(settings) if administrator else dsn_of(settings, Role[role.upper()])
    parts = conninfo_to_dict(dsn)
    environment = {variable: str(parts[part]) for variable, part in _VARIABLES.items() if parts.get(part)}
    # What is changed there has a name in the audit trail, too.
    # In options blanks divide, and a backslash takes that from them.
    environment["PGOPTIONS"] = "-c app.actor=" + re.sub(r"([\\\s])", r"\\\1", command_line().setting)
    if role == "owner":
        environment["PGOPTIONS"] += f" -c role={Role.OWNER.value}"
    return environment
