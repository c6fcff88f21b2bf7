"""Rollups of every grain: marks with an aim and a turn, corrections that mark themselves, states of sketches."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    _run(Path(__file__).with_name("0005_rollups_down.sql"))


def _run(file: Path) -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(file.read_text("utf-8"))
