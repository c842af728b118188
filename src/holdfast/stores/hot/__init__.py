"""Adapters of the hot tier."""
