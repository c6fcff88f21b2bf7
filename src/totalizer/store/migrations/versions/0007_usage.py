"""Usage of merchants by day, how its aggregation went, and counters that could not be read."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    _run(Path(__file__).with_name("0007_usage_down.sql"))


def _run(file: Path) -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(file.read_text("utf-8"))
