"""Sources of key-encryption keys."""
