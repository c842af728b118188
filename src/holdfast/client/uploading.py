"""A document as a form that is uploaded piece by piece (RFC 7578)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping

from holdfast.errors import InvalidChangeError
from holdfast.model.text import check_text

_PIECE = 1 << 18
_MOST_NAME = 1_000
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"'})


class Upload:
    """A form with one file. It can be sent as often as need be.

    The name stands in quotes with a backslash before a quote, which is read as it was written; browsers, and the HTTP
    library, write ``%22`` instead, which nobody can tell from a name that has it.

    Attributes:
        media: the media type, with the boundary.
        length: bytes in all.
    Raises:
        InvalidChangeError: the name cannot be sent.
    """

    def __init__(self, fields: Mapping[str, str], name: str, data: bytes) -> None:
        check_text("a source's name", name, most=_MOST_NAME)
        if any(character < " " or character == "\x7f" for character in name):
            raise InvalidChangeError("through a service, a source's name has no control characters")
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        ]
        quoted = name.translate(_ESCAPED)
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n')
        self._head, self._data, self._tail = "".join(parts).encode(), data, f"\r\n--{boundary}--\r\n".encode()
        self.media = f"multipart/form-data; boundary={boundary}"
        self.length = len(self._head) + len(data) + len(self._tail)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The form, from its beginning."""
        yield self._head
        for start in range(0, len(self._data), _PIECE):
            yield self._data[start : start + _PIECE]
        yield self._tail
