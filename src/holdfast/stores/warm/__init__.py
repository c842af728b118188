"""Adapters of the warm tier."""
