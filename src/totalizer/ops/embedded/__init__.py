"""PostgreSQL and Valkey as child processes on one data folder, reached through Unix sockets only."""

from totalizer.ops.embedded.postgres import EmbeddedPostgres
from totalizer.ops.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey"]
