"""Benchmarks: each measures the system as a user runs it, beside a baseline on the same machine in the same minutes.

`script/bench NAME [--quick]`; docs/reference/benchmarks.md says what each case means.
"""
