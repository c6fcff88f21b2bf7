"""Who changed what."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    _run(Path(__file__).with_name("0013_audit_down.sql"))


def _run(file: Path) -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(file.read_text("utf-8"))
