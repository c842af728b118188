"""What turns text into vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol


class Embedder(Protocol):
    """One model.

    Attributes:
        name: model and version; it goes into the content digest, so that another model embeds everything anew.
        dimensions: length of each vector.
    """

    name: str
    dimensions: int

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector a text, each ``dimensions`` little-endian float32 of unit length (or all zero for empty text).

        Raises:
            SinkUnavailableError: the model did not answer.
        """
