"""Connections that more than one room uses."""
