"""Adapters of the cold tier."""
