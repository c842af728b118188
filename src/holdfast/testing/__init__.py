"""Shipped for those who write adapters and kinds: a conformance suite for each port, clocks, faults, a machine."""
