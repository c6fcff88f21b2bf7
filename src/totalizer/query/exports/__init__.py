"""Taking data out in bulk: pages of events or totals, in one of four formats."""
