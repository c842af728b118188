"""Encode, compress, encrypt: what a store sees is a header and opaque bytes.

AES-256-GCM with one data key a session (NIST SP 800-38D); the data key is wrapped by a key-encryption key that has
an id. What each run of bytes is, and where it belongs, goes into the associated data, every part with its length
before it: bytes put in another place, session, tenant, version or format do not open.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from holdfast.errors import LimitExceededError, TamperedError, UnreadableError
from holdfast.model.entry import EntryHeader, Payload
from holdfast.model.item import Item
from holdfast.model.session import Header, SealedHead, SealedItem
from holdfast.ports.clock import Chance
from holdfast.ports.keys import Keys, KeySource

FORMAT = b"\x01"
"""First byte of everything sealed: AES-256-GCM, 96-bit nonce, 128-bit tag. Another algorithm takes another number."""

MOST_SEALED = 2**28
"""How much one data key may encrypt.

Random 96-bit nonces are good for 2**32 messages (SP 800-38D, 8.3); this is far below.
"""

_NONCE = 12
_PLAIN, _DEFLATED = b"\x00", b"\x01"
_WORTH_DEFLATING = 4_096
_MOST_INFLATED = 64 * 1024 * 1024


def framed(*parts: bytes) -> bytes:
    """Parts as one run of bytes that no other list of parts gives."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def deflate(data: bytes) -> bytes:
    """The data, compressed where that pays, behind a byte that says so; refused if ``inflate`` would refuse it."""
    if len(data) >= _MOST_INFLATED:
        raise LimitExceededError("bytes sealed in one piece", len(data), _MOST_INFLATED - 1)
    if len(data) >= _WORTH_DEFLATING:
        packed = zlib.compress(data, 1)
        if len(packed) < len(data) * 0.9:
            return _DEFLATED + packed
    return _PLAIN + data


def inflate(data: bytes) -> bytes:
    """What ``deflate`` was given; never more than 64 MiB, whatever the bytes say."""
    if data[:1] == _PLAIN:
        return data[1:]
    opener = zlib.decompressobj()
    whole = opener.decompress(data[1:], _MOST_INFLATED)
    if opener.unconsumed_tail:
        raise LimitExceededError("decompressed bytes", _MOST_INFLATED + 1, _MOST_INFLATED)
    return whole


def hedged(key: bytes, chance: Chance, aad: bytes, data: bytes) -> bytes:
    """A nonce of 96 bits: a keyed hash over fresh randomness, the associated data and the data.

    Were the randomness ever to repeat (a forked process, a machine snapshot run twice), two messages would share a
    nonce only by being the same message.
    """
    return blake2b(chance.bytes(16) + aad + data, key=key, digest_size=_NONCE).digest()


class Cipher:
    """What one session's data key can do. Kept for as long as the session is open, for setting up a key costs time."""

    __slots__ = ("_aead", "_item_key", "_nonce_key", "_root_key", "_where", "chance")

    def __init__(self, key: bytes, tenant: str, session: str, chance: Chance) -> None:
        self._aead = AESGCM(_derive(key, b"seal"))
        self._item_key, self._nonce_key, self._root_key = (_derive(key, part) for part in (b"item", b"nonce", b"root"))
        self._where = framed(FORMAT, tenant.encode(), session.encode())
        self.chance = chance

    def seal(self, data: bytes, aad: bytes) -> bytes:
        """Encrypt, bound to ``aad``."""
        nonce = hedged(self._nonce_key, self.chance, aad, data)
        return FORMAT + nonce + self._aead.encrypt(nonce, data, self._where + aad)

    def open(self, sealed: bytes, aad: bytes, what: str) -> bytes:
        """Decrypt, or raise ``TamperedError`` and nothing of the content."""
        if sealed[:1] != FORMAT:
            raise TamperedError(what)
        try:
            return self._aead.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], self._where + aad)
        except (InvalidTag, ValueError):
            raise TamperedError(what) from None

    def item_id(self, key: str) -> bytes:
        """The opaque name of an item: stores do not learn what an item is called."""
        return blake2b(key.encode(), key=self._item_key, digest_size=16).digest()

    def request_id(self, fingerprint: bytes, actor: str) -> bytes:
        """What is kept of an actor's request to know it again: stored in clear, it tells nobody what was asked, and
        nothing once the key is destroyed.
        """
        return self.item_id(f"request {fingerprint.hex()} {actor}")

    def root_part(self, item_id: bytes, version: int) -> int:
        """One item's share in the root. XOR of the shares of all items is a keyed set hash, kept sealed in the header.

        It costs the same for a change whatever the size of the session, and an item that is missing, extra or of an
        old version shows. (Bellare and Micciancio 1997, incremental hashing; the sum is never shown, so it cannot
        be solved.)
        """
        part = blake2b(item_id + version.to_bytes(8, "big"), key=self._root_key, digest_size=32).digest()
        return int.from_bytes(part, "big")


# -- what is sealed, and what it is bound to -------------------------------------------------------------------------

_HEAD = b"head"
_encode = msgspec.json.Encoder().encode
_header_decoder = msgspec.json.Decoder(Header)
_encode_entry = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(EntryHeader).decode
_payload_decoder = msgspec.json.Decoder(Payload)


class _Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item in its sealed form; the body follows it as it is."""

    key: str
    position: str
    written: int
    notes: bool = False


_stored_decoder = msgspec.json.Decoder(_Stored)


def seal_item(cipher: Cipher, item: Item, note: bool = False, *, item_id: bytes | None = None) -> SealedItem:
    """An item for rest, bound to its opaque name and its version; ``item_id`` is that name where it is at hand."""
    if item_id is None:
        item_id = cipher.item_id(item.key)
    meta = _encode(_Stored(item.key, item.position, item.written, note))
    data = deflate(len(meta).to_bytes(2, "big") + meta + item.raw)
    return SealedItem(item_id, item.version, cipher.seal(data, _item_aad(item_id, item.version)))


def open_item(cipher: Cipher, sealed: SealedItem) -> tuple[Item, bool]:
    """The item, and whether it is a note; ``TamperedError`` if it is not the bytes that were written there."""
    data = inflate(cipher.open(sealed.sealed or b"", _item_aad(sealed.id, sealed.version), "an item"))
    start = 2 + int.from_bytes(data[:2], "big")
    meta = _stored_decoder.decode(data[2:start])
    return Item(meta.key, meta.position, data[start:], sealed.version, meta.written), meta.notes


def seal_head(cipher: Cipher, header: Header, due: float | None, key: bytes | None) -> SealedHead:
    """A header for rest, with what a store finds sessions by beside it in clear."""
    return SealedHead(
        header.id,
        header.tenant,
        header.owner,
        header.kind,
        header.status.value,
        header.step,
        header.version,
        header.digest,
        header.created.timestamp(),
        due,
        cipher.seal(deflate(_encode(header)), _HEAD),
        key,
    )


def open_head(cipher: Cipher, head: SealedHead) -> Header:
    """The header; ``TamperedError`` if its bytes, or what stands beside them in clear, are not what was written."""
    header = _header_decoder.decode(inflate(cipher.open(head.sealed, _HEAD, f"session {head.id}")))
    told = (head.id, head.tenant, head.owner, head.kind, head.status, head.step, head.version, head.digest)
    if told != (
        header.id,
        header.tenant,
        header.owner,
        header.kind,
        header.status,
        header.step,
        header.version,
        header.digest,
    ):
        raise TamperedError(f"session {head.id}")
    return header


def seal_payload(cipher: Cipher, header: bytes, payload: Payload) -> bytes:
    """The content of a log entry for rest, bound to its header."""
    return cipher.seal(deflate(_encode(payload)), b"entry" + header)


def open_payload(cipher: Cipher, header: bytes, payload: bytes, what: str) -> Payload:
    """The content of a log entry; ``TamperedError`` if it or its header is not what was written."""
    return _payload_decoder.decode(inflate(cipher.open(payload, b"entry" + header, what)))


def encode_entry(header: EntryHeader) -> bytes:
    """An entry's header as it is stored: a list without names, for there is one in every commit."""
    return _encode_entry(header)


def decode_entry(header: bytes, what: str) -> EntryHeader:
    """An entry's header from its stored bytes."""
    try:
        return _decode_entry(header)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise TamperedError(what) from None


def fingerprint(operation: str, asked: object) -> bytes:
    """What tells a resent request from another one under the same change id."""
    return blake2b(_encode((operation, asked)), digest_size=16).digest()


def _item_aad(item_id: bytes, version: int) -> bytes:
    return b"item" + item_id + version.to_bytes(8, "big")


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, b"holdfast 1 " + purpose).derive(key)


# -- data keys under key-encryption keys -----------------------------------------------------------------------------


class KeyRing:
    """Wraps data keys under the active key-encryption key, unwraps under any it has."""

    def __init__(self, source: KeySource, chance: Chance) -> None:
        self._source, self._chance = source, chance
        self._keys = source.read()

    @property
    def active(self) -> str:
        return self._keys.active

    @property
    def ids(self) -> list[str]:
        return list(self._keys.keys)

    def reload(self) -> None:
        """Take the keys as they stand now: another process may have rotated them."""
        self._keys = self._source.read()

    @property
    def writable(self) -> bool:
        """Whether keys can be added and dropped from here; those of the environment cannot."""
        return self._source.writable

    def rotate(self) -> str:
        """Add a new key and make it the active one; older ones only unwrap from now on.

        Where keys are brought in from outside, the one they name first is the new one already.
        """
        self.reload()
        if not self.writable:
            return self.active
        name = f"key-{self._chance.token()[:12]}"
        keys = Keys(active=name, keys={**self._keys.keys, name: self._chance.bytes(32)})
        self._source.write(keys)
        self._keys = keys
        return name

    def drop(self, name: str) -> None:
        """Forget a key that is not active; what is still wrapped under it becomes unreadable."""
        self._source.write(Keys(self._keys.active, {id_: key for id_, key in self._keys.keys.items() if id_ != name}))
        self.reload()

    def wrap(self, data_key: bytes, tenant: str, session: str) -> bytes:
        """A data key for rest, under the key that is active now: key id, nonce, ciphertext; bound to its session."""
        self.reload()
        name = self.active
        key = self._keys.keys[name]
        aad = framed(b"wrap", name.encode(), tenant.encode(), session.encode())
        nonce = hedged(_derive(key, b"wrap nonce"), self._chance, aad, data_key)
        sealed = AESGCM(_derive(key, b"wrap")).encrypt(nonce, data_key, aad)
        return msgspec.msgpack.encode((name, nonce, sealed))

    def unwrap(self, wrapped: bytes | None, tenant: str, session: str) -> bytes:
        """The data key; ``UnreadableError`` if it or its key-encryption key is destroyed, ``TamperedError`` if
        altered.
        """
        if wrapped is None:
            raise UnreadableError(f"Session {session}", "destroyed")
        try:
            name, nonce, sealed = msgspec.msgpack.decode(wrapped, type=tuple[str, bytes, bytes])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise TamperedError(f"the key of session {session}") from None
        key = self._key(name, session)
        try:
            aad = framed(b"wrap", name.encode(), tenant.encode(), session.encode())
            return AESGCM(_derive(key, b"wrap")).decrypt(nonce, sealed, aad)
        except (InvalidTag, ValueError):
            raise TamperedError(f"the key of session {session}") from None

    def wraps(self, wrapped: bytes) -> str:
        """The id of the key-encryption key that a data key is wrapped under."""
        try:
            return msgspec.msgpack.decode(wrapped, type=tuple[str, bytes, bytes])[0]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise TamperedError("a wrapped key") from None

    def is_stale(self, wrapped: bytes) -> bool:
        """Whether the keys have been rotated since a data key was wrapped."""
        self.reload()
        return self.wraps(wrapped) != self.active

    def secret(self, purpose: bytes, name: str | None = None) -> bytes:
        """A secret for another use, of the active key or of a named one."""
        return _derive(self._key(name or self.active, purpose.decode()), b"secret " + purpose)

    def _key(self, name: str, what: str) -> bytes:
        if name not in self._keys.keys:
            self.reload()
        try:
            return self._keys.keys[name]
        except KeyError:
            raise UnreadableError(f"Session {what}", name) from None
