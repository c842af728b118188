"""Where the keys that verify tokens come from: one shared secret, or what the issuer publishes.

An issuer's keys are asked for when the service starts, at regular intervals, and when a token names one that is not
known, yet no oftener than every ten seconds: whoever makes up key ids makes nobody wait and asks nobody anything. While
the issuer does not answer, its last keys hold for a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from joserfc.jwk import Key, OctKey

from holdfast.errors import ConfigurationError, UnavailableError, WeakKeyError
from holdfast.ports.observer import Observer
from holdfast.service.auth.jwks import LEAST_RSA_BITS, PublicKeys, public_keys
from holdfast.service.auth.local import is_loopback

if TYPE_CHECKING:
    import httpx2

LEAST_SECRET = 32
MOST_BYTES = 262_144
"""Bytes of a key set; of a longer one nothing is taken."""
FETCH_SECONDS = 3.0
"""How long an issuer may take to answer whole."""
REFRESH_SECONDS = 600.0
LOOK_SECONDS = 1.0
"""How often a key file is looked at."""
APART_SECONDS = 10.0
"""How long after one attempt the next may be made because of an unknown key, or because it failed."""
KEEP_SECONDS = 86_400.0
"""How long keys hold whose source does not answer."""

_FEWEST_DISTINCT = 10
_WORDS = (
    "changeme", "change-me", "change_me", "default", "example", "holdfast", "insecure", "letmein", "password", "qwerty",
    "secret", "12345678", "abcdefgh", "-----begin", "ssh-rsa", "ssh-ed25519", "ecdsa-sha2",
)  # fmt: skip


class KeySource(Protocol):
    """The keys that verify tokens.

    Attributes:
        generation: grows whenever a key is no longer what it was: what was verified before counts no more.
    """

    generation: int

    @property
    def known(self) -> bool:
        """Whether the source has said which keys there are, and that holds."""
        return True

    @abstractmethod
    async def find(self, kid: str | None) -> Key | None:
        """The key of an id, None if there is none; without an id the only one.

        Raises:
            UnavailableError: there may be one, but the source does not answer.
        """

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class SecretKey(KeySource):
    """One secret shared with the issuer; what a token calls it does not matter."""

    generation = 0

    def __init__(self, secret: str) -> None:
        _check_secret(secret)
        self._key = OctKey.import_key(secret.encode())
        self.length = len(secret.encode())

    async def find(self, kid: str | None) -> Key | None:
        return self._key

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Fetch(Protocol):
    """Gets the bytes of a key set, and says how often to ask again, in seconds."""

    every: float

    @abstractmethod
    async def __call__(self) -> bytes:
        """What stands there now, at most ``MOST_BYTES``.

        Raises:
            OSError: it cannot be had.
        """

    @abstractmethod
    async def close(self) -> None: ...


class PublishedKeys(KeySource):
    """The keys an issuer publishes, kept at hand."""

    def __init__(
        self,
        fetch: Fetch,
        family: str,
        observer: Observer | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._family, self._observer, self._steady = fetch, family, observer, steady
        self._keys: PublicKeys = {}
        self._raw: bytes | None = None
        self._tried = self._fetched = float("-inf")
        self._flight: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: str | None = "it was never asked"
        self.generation = 0

    @property
    def age(self) -> float:
        """Seconds since the source answered last; infinite if it never has."""
        return self._steady() - self._fetched

    @property
    def known(self) -> bool:
        return self._raw is not None

    async def find(self, kid: str | None) -> Key | None:
        key = self._pick(kid)
        if key is None and self._steady() - self._tried >= APART_SECONDS:
            await self.refresh()
            key = self._pick(kid)
        elif key is None and self._flight is not None:
            await asyncio.shield(self._flight)
            key = self._pick(kid)
        if key is None and self._failure is not None:
            raise UnavailableError("The keys of the issuer cannot be had just now; try again.")
        return key

    async def open(self) -> None:
        """Ask for the keys. An address that does not answer yet is asked again; whatever else is wrong is refused.

        Raises:
            ConfigurationError: a file that cannot be read, or not one key that fits.
        """
        await self.refresh()
        wrong = None
        if self._failure is not None and isinstance(self._fetch, KeyFile):
            wrong = f"auth.keys cannot be read: {self._failure}."
        elif self._failure is None and not self._keys:
            length = f" of {LEAST_RSA_BITS:,} bits or more" if self._family in ("RS", "PS") else ""
            wrong = f"auth.keys has no public key{length} for the {self._family} family."
        if wrong is not None:
            await self._fetch.close()
            raise ConfigurationError(wrong)
        self._task = asyncio.create_task(self._watch(), name="holdfast-keys")

    async def close(self) -> None:
        for task in (self._task, self._flight):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._fetch.close()

    async def refresh(self) -> None:
        """Ask the source now, together with whoever is asking it already."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._ask())
        await asyncio.shield(self._flight)  # one that goes away takes the answer from nobody

    def _pick(self, kid: str | None) -> Key | None:
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    async def _ask(self) -> None:
        self._tried = self._steady()
        try:
            raw = await self._fetch()
            if raw != self._raw:
                self._take(public_keys(raw, self._family), raw)
            self._fetched, self._failure = self._steady(), None
        except Exception as error:  # whatever it is: the keys at hand stand, and it is asked again
            # Not the words of a parser: they may quote what stood there.
            self._failure = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no JWK Set"
            if self._observer is not None:
                self._observer.failed("keys", type(error).__name__)
            if self.age > KEEP_SECONDS:
                self._take({}, None)
        finally:
            self._flight = None

    def _take(self, keys: PublicKeys, raw: bytes | None) -> None:
        if any(kid not in keys or keys[kid] != key for kid, key in self._keys.items()):
            self.generation += 1
        self._keys, self._raw = keys, raw

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._fetch.every if self._failure is None else min(self._fetch.every, APART_SECONDS))
            await self.refresh()


class KeyFile(Fetch):
    """A key set in a file, which is looked at every second: what changed is seen without asking when it did."""

    every = LOOK_SECONDS

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is not a file")
            if found.st_size > MOST_BYTES:
                raise OSError(f"it is larger than {MOST_BYTES:,} bytes")
            return os.read(descriptor, MOST_BYTES)
        finally:
            os.close(descriptor)

    async def close(self) -> None:
        pass


class KeyAddress(Fetch):
    """A key set at an address. Redirects are not followed: what is asked is the host of the settings and no other."""

    every = REFRESH_SECONDS

    def __init__(self, url: str, *, seconds: float = FETCH_SECONDS) -> None:
        self._url, self._seconds = url, seconds
        self._client: httpx2.AsyncClient | None = None

    async def __call__(self) -> bytes:
        import httpx2

        if self._client is None:
            # Proxies of the environment are for what is beyond this machine.
            beyond = urlsplit(self._url).scheme == "https"
            self._client = httpx2.AsyncClient(timeout=self._seconds, follow_redirects=False, trust_env=beyond)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(self._client)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise OSError(f"the address does not answer ({type(error).__name__})") from None
        except TimeoutError:
            raise OSError(f"the address does not answer within {self._seconds:g} seconds") from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _get(self, client: httpx2.AsyncClient) -> bytes:
        # Neither packed nor kept open: a packed answer could be larger than it looks.
        headers = {"accept": "application/json", "accept-encoding": "identity", "connection": "close"}
        async with client.stream("GET", self._url, headers=headers) as response:
            if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
                raise OSError(f"the address answers with status {response.status_code}, not with plain content")
            raw = bytearray()
            async for part in response.aiter_raw():
                raw += part
                if len(raw) > MOST_BYTES:
                    raise OSError(f"it is larger than {MOST_BYTES:,} bytes")
            return bytes(raw)


def fetch_of(url: str) -> Fetch:
    """What gets the key set of a URL: ``https://``, ``file://``, or ``http://`` on this machine.

    Raises:
        ConfigurationError: it is none of these.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "file" and host in ("", "localhost") and parts.path.startswith("/"):
        return KeyFile(Path(unquote(parts.path)))
    if parts.scheme == "https" and host:
        return KeyAddress(url)
    if parts.scheme == "http" and is_loopback(host):
        return KeyAddress(url)
    raise ConfigurationError(
        "auth.keys is an https:// address or a file:///path; http:// is for an issuer on this machine alone."
    )


def _check_secret(secret: str) -> None:
    """Raise ``WeakKeyError`` for a secret that is short, repeats itself or is made of what everybody tries first."""
    weakness = None
    if len(secret.encode()) < LEAST_SECRET:
        weakness = f"has {len(secret.encode())} bytes and not {LEAST_SECRET} or more"
    elif len(set(secret)) < _FEWEST_DISTINCT or secret in (secret + secret)[1:-1]:
        weakness = "repeats itself"
    elif any(word in secret.lower() for word in _WORDS):
        weakness = "is made of words that everybody tries first"
    if weakness is not None:
        raise WeakKeyError(f"auth.secret {weakness}; make one with `openssl rand -base64 48`.")
