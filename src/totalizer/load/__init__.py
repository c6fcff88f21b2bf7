"""The loader: from the journal into PostgreSQL, each acknowledged event exactly once."""

from totalizer.load.loader import Loader

__all__ = ["Loader"]
