"""A lexical embedder: no download, no server, the same vectors everywhere.

It is lexical, not semantic: it compares spelling, not meaning. "Car" and "automobile" have nothing in common for it,
"publishing" and "published" have much. Each word, and each run of three and four characters in it, is hashed to one of
the dimensions with a sign, as in Weinberger, Dasgupta, Langford, Smola, Attenberg: "Feature Hashing for Large Scale
Multitask Learning" (ICML 2009); the signs make chance collisions cancel on average. A word counts 1 + ln(its count),
the shortest words count less than others (there is no corpus to tell rare from common, and in most languages the
commonest words are short), and the sum is scaled to length 1.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.ports.embedder import Embedder

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_FULL_WORD = 4
_LONGEST_WORD = 64
_PARTS_SHARE = 0.6
_LARGE = 50_000

Features = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


class LexicalEmbedder(Embedder):
    """Hashed words and character runs, 512 dimensions. It holds nothing between calls."""

    name = "lexical-hash-1"
    dimensions = 512

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector a text; more than 50,000 characters are worked on in a thread."""
        if sum(map(len, texts)) > _LARGE:
            return await asyncio.to_thread(self.vectors, texts)
        return self.vectors(texts)

    def vectors(self, texts: Sequence[str]) -> list[bytes]:
        """The same, without the event loop."""
        batch = _Batch(self.dimensions)
        return [batch.vector(text).astype("<f4").tobytes() for text in texts]


class _Batch:
    """Some texts, and what was hashed already for those before."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._features: dict[str, Features] = {}
        self._slots: dict[str, tuple[int, float]] = {}

    def vector(self, text: str) -> npt.NDArray[np.float64]:
        total = np.zeros(self._dimensions)
        if not text.strip():
            return total
        for word, count in Counter(_words(text)).items():
            slots, weights = self._features_of(word)
            total[slots] += (1.0 + math.log(count)) * weights
        norm = float(np.linalg.norm(total))
        if norm < 1e-9:  # every feature met its opposite: such a text still has to have a direction
            total[:] = 0.0
            total[self._slot_of("text:" + text)[0]] = norm = 1.0
        return total / norm

    def _features_of(self, word: str) -> Features:
        """The dimensions a word touches, each once, and by how much."""
        known = self._features.get(word)
        if known is not None:
            return known
        weight = min(len(word), _FULL_WORD) / _FULL_WORD
        parts = _parts(word)
        part_weight = _PARTS_SHARE * weight / math.sqrt(len(parts) or 1)
        row: dict[int, float] = {}
        for feature, share in [("word:" + word, weight), *((part, part_weight) for part in parts)]:
            slot, sign = self._slot_of(feature)
            row[slot] = row.get(slot, 0.0) + sign * share
        features = np.fromiter(row.keys(), np.intp, len(row)), np.fromiter(row.values(), np.float64, len(row))
        self._features[word] = features
        return features

    def _slot_of(self, feature: str) -> tuple[int, float]:
        known = self._slots.get(feature)
        if known is None:
            digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashed = int.from_bytes(digest, "little")
            known = self._slots[feature] = (hashed >> 1) % self._dimensions, 1.0 if hashed & 1 else -1.0
        return known


def _words(text: str) -> list[str]:
    """Words, compatibility-normalised and case-folded. Scripts without spaces give single characters and pairs."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words: list[str] = []
    for word in _WORD.findall(plain):
        if _UNSPACED.search(word):
            words += word
            words += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            words.append(word[:_LONGEST_WORD])
    return words or [plain.strip()[:_LONGEST_WORD]]


def _parts(word: str) -> list[str]:
    """Runs of three and four characters, the edges of the word marked."""
    edged = f"<{word}>"
    if len(edged) <= 3:
        return []
    return ["part:" + edged[at : at + size] for size in (3, 4) for at in range(len(edged) - size + 1)]
