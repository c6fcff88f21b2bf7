"""The catalog: event types and rollups as declarations, from which everything about them is derived."""

from totalizer.catalog.model import Catalog, EventType, Field, FieldType, Measure, Rollup
from totalizer.catalog.read import load_catalog

__all__ = ["Catalog", "EventType", "Field", "FieldType", "Measure", "Rollup", "load_catalog"]
