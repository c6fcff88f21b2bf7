"""Exact usage metering and activity analytics on PostgreSQL."""

__version__ = "0.1.0"
