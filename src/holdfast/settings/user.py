"""The person at the machine: who works with a home of his own without having to say who he is."""

from __future__ import annotations

import getpass
import os

LOCAL_TENANT = "local"


def system_user() -> str:
    """The operating-system user, or its number where it has no name (as in a bare container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"
