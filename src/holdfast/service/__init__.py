"""The HTTP service: requests in, bytes out. It translates; the engine decides."""
