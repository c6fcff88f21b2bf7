"""What processes measure of themselves, kept so that any of them can tell the sum of all."""

from totalizer.metrics.measures import MEASURES, Measures
from totalizer.metrics.shown import metrics_text

__all__ = ["MEASURES", "Measures", "metrics_text"]
