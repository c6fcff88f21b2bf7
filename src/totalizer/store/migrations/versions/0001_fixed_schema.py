"""The fixed schema."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    # Dropping the first revision would drop every organisation's data: that is `DROP DATABASE`, not a migration.
    raise NotImplementedError("the first revision has nothing before it; drop the database instead")
