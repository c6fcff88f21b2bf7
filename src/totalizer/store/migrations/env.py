"""Where Alembic finds the database: the connection `totalizer migrate` hands it, or the settings' own."""

from __future__ import annotations

from typing import Any

from alembic import context
from psycopg import Connection
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from totalizer.app import administrator_connection


def run(connection: Connection[Any]) -> None:
    """Run the migrations over an open connection, as the owner of the schema."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    with engine.connect() as bound:
        # Alembic notes revisions before the first of them has made a schema to note them in.
        bound.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS totalizer")
        bound.commit()
        context.configure(
            connection=bound,
            version_table="schema_version",
            version_table_schema="totalizer",
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


given: Connection[Any] | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with administrator_connection() as own:
        run(own)
