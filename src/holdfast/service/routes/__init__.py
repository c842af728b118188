"""One file a noun; each has ``routes``, a ``Routes``."""
