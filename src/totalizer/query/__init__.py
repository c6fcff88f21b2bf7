"""Exact answers from rollups: parse, plan, compile, run, result."""
