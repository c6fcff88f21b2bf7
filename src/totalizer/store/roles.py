"""The four database roles, their passwords and their connection strings.

    totalizer_owner      owns every object; runs DDL; nobody can log in as it
    totalizer_writer     loads events: inserts, and reads only to find duplicates; tries dead letters again, drops them
    totalizer_refresher  recomputes rollups: reads events, writes rollups
    totalizer_app        answers requests: selects under row-level security, administers an organisation's keys, counts
                         what is refused

The server's processes log in as the last three, never as owner or superuser.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from totalizer.store.password import password_for


class Role(Enum):
    """A database role of the service."""

    OWNER = "totalizer_owner"
    WRITER = "totalizer_writer"
    REFRESHER = "totalizer_refresher"
    APP = "totalizer_app"


#: Roles that processes log in as.
LOGIN_ROLES = (Role.WRITER, Role.REFRESHER, Role.APP)
SEARCH_PATH = "events, analytics, totalizer, public"


def role_dsn(database_url: str, role: Role, secret: str) -> str:
    """A connection string for one role of the database that `database_url` names; its own user is replaced."""
    return make_conninfo(
        database_url, user=role.value, password=password_for(secret, role.value),
        application_name=f"totalizer {role.name.lower()}",
    )  # fmt: skip


def ensure_roles(connection: Connection[Any], secret: str) -> None:
    """Create the roles, or renew their passwords, and let this user act as owner and refresher.

    Args:
        connection: as an administrator who may create roles.
        secret: the installation's secret.
    """
    database = conninfo_to_dict(connection.info.dsn).get("dbname") or connection.info.dbname
    with connection.transaction():
        # Two first starts against one cluster would both try to create the roles.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('totalizer roles'))")
        known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        for role in Role:
            name = sql.Identifier(role.value)
            if role.value not in known:
                connection.execute(sql.SQL("CREATE ROLE {}").format(name))
            if role in LOGIN_ROLES:
                password = sql.Literal(password_for(secret, role.value))
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, password))
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}").format(
                    name, sql.Identifier(str(database)), sql.SQL(SEARCH_PATH)
                )
            )
        for role in (Role.OWNER, Role.REFRESHER):
            connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role.value)))
        connection.execute(
            sql.SQL("GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
                sql.Identifier(str(database)), sql.Identifier(Role.OWNER.value)
            )
        )
        connection.execute(
            sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}, {}").format(
                sql.Identifier(str(database)),
                sql.Identifier(Role.WRITER.value),
                sql.Identifier(Role.REFRESHER.value),
            )
        )
