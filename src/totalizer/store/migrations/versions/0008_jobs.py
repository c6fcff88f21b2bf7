"""Every run of a job is recorded, whichever process runs it; jobs can be asked for."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    _run(Path(__file__).with_name("0008_jobs_down.sql"))


def _run(file: Path) -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(file.read_text("utf-8"))
