"""PostgreSQL: every statement, table, partition and role."""
