"""Text that came from outside and is to be kept: names, titles, ids of changes."""

from __future__ import annotations

from holdfast.errors import InvalidChangeError


def check_text(what: str, text: str, *, most: int, least: int = 1) -> None:
    """Raise ``InvalidChangeError`` unless it is text of ``least`` to ``most`` characters that UTF-8 can hold."""
    if not isinstance(text, str) or not least <= len(text) <= most:
        raise InvalidChangeError(f"{what} has {least} to {most} characters")
    if not is_text(text):
        raise InvalidChangeError(f"{what} holds half a surrogate pair, which is no text")


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: a lone surrogate cannot be stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
