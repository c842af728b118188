"""The keys of the Redis hot tier: every one there is.

``{…}`` is the hash tag, which alone decides the slot of a cluster. A session lives in one of a fixed number of
partitions, chosen by a hash of its id: all that one script touches carries one tag, so every script runs whole on one
server of a cluster, and what must be asked over all sessions (what is due, what has moved) is asked of each partition
and put together. Of one owner's sessions, which lie in many partitions, the owner's own partition keeps count.

``h`` is the prefix, ``p`` a partition, ``id`` a session's id:

* ``{h:p}:s:id`` hash, the session as it stands. ``about`` (tenant, owner, kind, created: MessagePack), ``status``,
  ``step``, ``version``, ``digest``, ``due``, ``sealed`` and ``key`` are the head's; ``fence``, ``holder``, ``until``
  and ``seconds`` the lease's; ``floor`` is the first step that has not been trimmed, ``purged`` says that the payloads
  are hashes, ``uncounted`` that its owner's count may be without it, ``queued`` that it is on the flush queue: the
  first step that waits, a space, and the id of its entry. Each ``i:`` with an item's id is an item: eight bytes of its
  version, then its sealed bytes.
* ``{h:p}:l:id`` hash, its log: a step leads to its entry, ``c:`` with a change id to its step, also of
  an entry that has been trimmed.
* ``{h:p}:d`` sorted set, sessions by when they are due.
* ``{h:p}:m`` sorted set, sessions by the number of their last write; ``{h:p}:n`` the number given last.
* ``{h:p}:q`` stream, the flush queue: of session ``s`` what is from step ``n`` on waits, one entry a session. Its
  consumer group is ``flush``; what is acknowledged is deleted. It is never cut short.
* ``{h:p}:f`` how many of the writes that ``{h:p}:n`` counts wait no more: the difference is what does.
* ``{h:p}:b`` hash, dead letters by the id they had in the queue: the reason and the fields (MessagePack).
* ``{h:p}:e`` hash, evicted sessions and the step each stood at: none is made under such an id, and no older state is
  installed. 0 for any state. Those that were gone have a minus before it, and are forgotten after a while. Behind a
  space stands the last fence that was granted; without a name, the highest of those that have been forgotten.
* ``{h:p}:r`` list, the sessions evicted last, at most 256: they stay in ``{h:p}:m``, for whoever follows them.
* ``{h:p}:i`` a mark made at random when there was none: where it is another one than a process knows, the partition was
  emptied since.
* ``{h:p}:o:`` with tenant and owner (MessagePack): hash, the owner's sessions and the token each is counted by.
* ``{h:p}:v:token``: that token counts no more; the only key that expires, after an hour.
* ``{h}:layout`` hash: the format, the number of partitions, a mark as of a partition, and ``warm``, the name of the
  warm tier that it is flushed to.
* ``{h}:epochs`` hash: the first instant of each boot, and the latest of them.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import msgspec


class PartitionKeys(NamedTuple):
    """What a partition keeps of all its sessions."""

    tag: bytes
    due: bytes
    moved: bytes
    written: bytes
    queue: bytes
    buried: bytes
    evicted: bytes
    lately: bytes
    flushed: bytes
    mark: bytes


class SessionKeys(NamedTuple):
    """Where a session's keys are, and its partition's, which has the same ``tag``."""

    tag: bytes
    session: bytes
    log: bytes
    partition: PartitionKeys


class Keys:
    """The keys below a prefix."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self.root = prefix.encode()
        base = b"{%s}:" % self.root
        self.layout, self.epochs = base + b"layout", base + b"epochs"
        self.partitions = [_partition(b"%s:%d" % (self.root, number)) for number in range(partitions)]

    def partition(self, id: bytes) -> PartitionKeys:
        """Where a session of an id lives, or an owner's count. It must never change: data is found by it."""
        return self.partitions[zlib.crc32(id) % len(self.partitions)]

    def session(self, session: str) -> SessionKeys:
        id = session.encode()
        partition = self.partition(id)
        tag = partition.tag
        return SessionKeys(tag, b"{%s}:s:%s" % (tag, id), b"{%s}:l:%s" % (tag, id), partition)

    def stands(self, id: bytes) -> bytes:
        """Where a session of an id stands: the first of its keys."""
        return b"{%s}:s:%s" % (self.partition(id).tag, id)

    def owner(self, tenant: str, owner: str) -> tuple[bytes, bytes]:
        """Tag and key of an owner's count."""
        who = msgspec.msgpack.encode((tenant, owner))
        tag = self.partition(who).tag
        return tag, b"{%s}:o:%s" % (tag, who)

    def void(self, session: SessionKeys, token: bytes) -> bytes:
        """The mark that a token counts no more, beside the session it was given for."""
        return b"{%s}:v:%s" % (session.tag, token)


def _partition(tag: bytes) -> PartitionKeys:
    kinds = (b"d", b"m", b"n", b"q", b"b", b"e", b"r", b"f", b"i")
    return PartitionKeys(tag, *(b"{%s}:%s" % (tag, kind) for kind in kinds))
