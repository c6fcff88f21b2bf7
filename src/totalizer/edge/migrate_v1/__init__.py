"""Batch files of version 1 made into files of version 2.0.0, and back."""

from totalizer.edge.migrate_v1.migration import migrate
from totalizer.edge.migrate_v1.report import FileReport, MigrationReport, Outcome
from totalizer.edge.migrate_v1.rollback import rollback

__all__ = ["FileReport", "MigrationReport", "Outcome", "migrate", "rollback"]
