"""The collector: a request body in, a batch for the journal and an answer for every event out."""

from totalizer.collect.admit import Admission, Collector

__all__ = ["Admission", "Collector"]
