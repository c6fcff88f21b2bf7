"""An index of when events were stored, so that what is new is found without reading what is old."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    _run(Path(__file__).with_name("0014_stored_at_down.sql"))


def _run(file: Path) -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(file.read_text("utf-8"))
