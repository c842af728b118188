"""The URL of a store: its parts, and what its query names, each read as what it should be."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from holdfast.errors import ConfigurationError

_DIGITS = 9


class StoreUrl:
    """A URL taken apart. No message shows more of it than the names in its query: the rest may be a secret.

    Attributes:
        parts: as ``urlsplit`` gives them.
        query: what is named, and not yet read; of a name that stands there twice the last counts.
    """

    __slots__ = ("_where", "parts", "query")

    def __init__(self, url: str, called: str, *, where: str = "") -> None:
        """Take a URL apart.

        Args:
            called: what messages call it, as in "The URL of the cold tier".
            where: what they put behind the name of an option, as in " in a Redis URL".
        Raises:
            ConfigurationError: it cannot be read.
        """
        self._where = where
        try:
            self.parts = urlsplit(url)
            query = parse_qsl(self.parts.query, keep_blank_values=True, strict_parsing=bool(self.parts.query))
        except ValueError:
            raise ConfigurationError(f"{called} cannot be read.") from None
        self.query = dict(query)

    def check_known(self, named: str, known: Collection[str]) -> None:
        """Raise if the query has a name that is not known; ``named`` is who takes none of that, for the message."""
        unknown = sorted(self.query.keys() - known)
        if unknown:
            takes = ", ".join(sorted(known)) or "none"
            raise ConfigurationError(f"{named} takes no {', '.join(unknown)} in its query; it takes {takes}.")

    def number(self, name: str, usual: float, least: float, most: float) -> float:
        """A number of the query, ``usual`` if it is not named."""
        text = self.query.get(name)
        if text is None:
            return usual
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ConfigurationError(f"{name}{self._where} is a number from {least:g} to {most:g}.")
        return number

    def count(self, name: str, usual: int, least: int, most: int) -> int:
        """A whole number of the query, ``usual`` if it is not named."""
        text = self.query.get(name, str(usual))
        if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or not least <= int(text) <= most:
            raise ConfigurationError(f"{name}{self._where} is a number from {least} to {most}.")
        return int(text)

    def flag(self, name: str, usual: bool) -> bool:
        """Whether something of the query is on, ``usual`` if it is not named."""
        text = self.query.get(name, "on" if usual else "off")
        if text in ("on", "true", "yes", "1"):
            return True
        if text in ("off", "false", "no", "0"):
            return False
        raise ConfigurationError(f"{name}{self._where} is on or off.")
