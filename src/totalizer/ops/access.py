"""Who an operator's command is in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from totalizer.ops.secret import ensure_secret
from totalizer.store.connect import connect
from totalizer.store.password import password_for
from totalizer.store.roles import Role, role_dsn

if TYPE_CHECKING:
    from psycopg import Connection

    from totalizer.settings import Settings

SUPERUSER = "postgres"


def database_dsn(settings: Settings) -> str:
    """The database that the settings name, with the user they name, if any."""
    if settings.database_url is not None:
        return settings.database_url
    return make_conninfo(
        host=settings.db_host, port=settings.db_port, dbname=settings.db_name, user=settings.db_user,
        password=settings.db_password,
    )  # fmt: skip


def admin_dsn(settings: Settings) -> str:
    """A connection string of an administrator.

    A connection string through a Unix socket without a user is that of the embedded server: its superuser's password
    is derived from the secret.
    """
    dsn = database_dsn(settings)
    named = conninfo_to_dict(dsn)
    if named.get("user") or not str(named.get("host", "")).startswith("/"):
        return dsn
    secret = ensure_secret(settings.home, settings.secret)
    return make_conninfo(dsn, user=SUPERUSER, password=password_for(secret, SUPERUSER))


def admin_connection(settings: Settings) -> Connection[Any]:
    """A connection of an administrator; as a context manager it commits in the end.

    Raises:
        StoreUnavailable: the database cannot be reached or refuses the log-in.
    """
    return connect(admin_dsn(settings))


def refresher_connection(settings: Settings) -> Connection[Any]:
    """A connection of the role that may read events and rollups of all organisations; autocommit.

    Raises:
        StoreUnavailable: the database cannot be reached or refuses the log-in.
    """
    secret = ensure_secret(settings.home, settings.secret)
    return connect(role_dsn(database_dsn(settings), Role.REFRESHER, secret), autocommit=True)


def libpq_environment(settings: Settings, role: str) -> dict[str, str]:
    """The environment that makes psql be a role. The password is nowhere else.

    Args:
        settings: which name the database.
        role: app, writer or refresher; or owner or postgres, which need the administrator's log-in.
    """
    if role in ("owner", "postgres"):
        dsn = admin_dsn(settings)
    else:
        dsn = role_dsn(database_dsn(settings), Role[role.upper()], ensure_secret(settings.home, settings.secret))
    names = {
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "host": "PGHOST",
        "port": "PGPORT",
        "dbname": "PGDATABASE",
    }
    named = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    environment = {variable: named[key] for key, variable in names.items() if key in named}
    if "sslmode" in named:
        environment["PGSSLMODE"] = named["sslmode"]
    if role == "owner":
        environment["PGOPTIONS"] = f"-c role={Role.OWNER.value}"
    return environment
