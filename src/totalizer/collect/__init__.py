"""The collector: a request body in, a batch for the journal and an answer for every event out."""

from totalizer.collect.admission import Admission, AdmittedEvent
from totalizer.collect.admit import Collector
from totalizer.collect.each import Sent, Wrong, admit_each, admit_lines

__all__ = ["Admission", "AdmittedEvent", "Collector", "Sent", "Wrong", "admit_each", "admit_lines"]
