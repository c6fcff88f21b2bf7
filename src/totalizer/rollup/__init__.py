"""Rollups: recomputed from the events wherever marks say they are behind, and proven against them."""
