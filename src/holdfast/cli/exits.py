"""Exit codes: what a script should do next is the same within each."""

from __future__ import annotations

import typer
from typer.exceptions import TyperException

from holdfast import errors

UNEXPECTED, USAGE, INTERRUPTED = 1, 2, 130

EXIT_CODES: dict[type[errors.HoldfastError], int] = {
    errors.NotFoundError: 3,
    errors.ConflictError: 4,
    errors.RefusedError: 5,
    errors.InvalidError: 6,
    errors.UnavailableError: 7,
    errors.IntegrityError: 8,
    errors.ConfigurationError: 9,
}
"""One code a group of errors."""


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    for group, code in EXIT_CODES.items():
        if isinstance(error, group):
            return code
    if isinstance(error, TyperException):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt | typer.Abort) else UNEXPECTED
