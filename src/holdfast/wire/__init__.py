"""The JSON forms of values: what HTTP bodies, the client and ``--json`` agree on."""
