"""Scheduled work: one table of jobs, and what runs them."""
