"""Knowledge: the chunks of an ingested source, curated before they feed retrieval."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from holdfast.errors import InvalidChangeError, InvalidItemError, ItemNotFoundError
from holdfast.kinds.provenance import Span, joined, kept, parted
from holdfast.model.item import Item
from holdfast.model.patch import merged
from holdfast.model.session import Session
from holdfast.ports.kind import Draft, Ingested, Kind, Operation
from holdfast.ports.sink import Record, record_digest

CHUNKS = "chunks"

Keys = Annotated[list[str], msgspec.Meta(min_length=1)]


class Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A piece of text.

    Attributes:
        enabled: whether it is published.
        headings: the headings it stands under, the outermost first.
        metadata: whatever a search may want to know besides; published with the text.
        spans: where its characters stand in the source; what was typed in has none.
        origin: ``parsed`` as the parser made it, ``edited`` since, or ``added`` by hand.
    """

    text: str
    enabled: bool = True
    headings: list[str] = []
    metadata: dict[str, Any] = {}
    spans: list[Span] = []
    origin: Literal["parsed", "edited", "added"] = "added"


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cut a chunk in two before character number ``at`` of its text, counted from 0."""

    key: str
    at: int


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Join chunks that follow one another into the first of them, ``separator`` between their texts."""

    keys: Annotated[list[str], msgspec.Meta(min_length=2)]
    separator: str = "\n\n"


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replace the text of a chunk."""

    key: str
    text: str


class Insert(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Add a chunk with a text of one's own, next to another; with neither named, at the end."""

    text: str
    after: str | None = None
    before: str | None = None


class Enable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Publish chunks again that were disabled."""

    keys: Keys


class Disable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep chunks out of what is published."""

    keys: Keys


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Place a chunk next to another; with neither named, at the end."""

    key: str
    after: str | None = None
    before: str | None = None


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Change a chunk's metadata by a JSON merge patch (RFC 7396): a null removes."""

    key: str
    patch: dict[str, Any]


def ingest(data: bytes, name: str, /, *, most: int = sys.maxsize) -> Ingested:
    """The chunks of a Markdown or plain text document in UTF-8.

    The spans count characters of the decoded source; each is the chunk's text exactly.

    Raises:
        InvalidChangeError: not UTF-8, not text, or nothing in it.
        LimitExceededError: more than ``most`` chunks; no more of them are made than tell that.
    """
    from holdfast.kinds.parsing import parse  # brings the splitter along, which nothing else needs

    parsed = parse(data, name, most)
    items = []
    for number, piece in enumerate(parsed.pieces, 1):
        span = Span(piece.start, piece.end)
        chunk = Chunk(piece.text, headings=list(piece.headings), spans=[span], origin="parsed")
        items.append((f"{CHUNKS}/{number:04}", _plain(chunk)))
    source = {
        "name": name,
        "media": parsed.media,
        "bytes": len(data),
        "characters": parsed.characters,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return Ingested(parsed.title, items, source)


def split(draft: Draft, arguments: Split) -> None:
    chunk, key = _chunk(draft, arguments.key), arguments.key
    left, right = chunk.text[: max(arguments.at, 0)], chunk.text[max(arguments.at, 0) :]
    if not left.strip() or not right.strip():
        raise InvalidChangeError(f"a split at {arguments.at} of {len(chunk.text)} leaves one half without text", key)
    before, after = parted(chunk.spans, arguments.at)
    second = draft.new_key(CHUNKS)
    _put(draft, key, msgspec.structs.replace(chunk, text=left, spans=before))
    draft.put(second, _plain(msgspec.structs.replace(chunk, text=right, spans=after)), after=key)


def merge(draft: Draft, arguments: Merge) -> None:
    order = [item.key for item in draft.collection(CHUNKS)]
    wanted = set(arguments.keys)
    missing = sorted(wanted - set(order))
    if missing:
        raise ItemNotFoundError(missing[0])
    if len(wanted) != len(arguments.keys):
        raise InvalidChangeError("a chunk cannot be merged with itself")
    first = min(order.index(key) for key in wanted)
    keys = order[first : first + len(wanted)]
    if set(keys) != wanted:
        raise InvalidChangeError("only chunks that follow one another can be merged; move them together first")
    chunks = [_chunk(draft, key) for key in keys]
    if len({chunk.enabled for chunk in chunks}) > 1:
        raise InvalidChangeError("some of these chunks are disabled: enable or disable all of them first")
    text, spans = joined([(chunk.text, chunk.spans) for chunk in chunks], arguments.separator)
    metadata: dict[str, Any] = {}
    for chunk in chunks:
        metadata = {**chunk.metadata, **metadata}  # where two disagree, the earlier chunk has it
    origins = {chunk.origin for chunk in chunks}
    origin = chunks[0].origin if len(origins) == 1 else "edited"
    for key in keys[1:]:
        draft.delete(key)
    _put(draft, keys[0], msgspec.structs.replace(chunks[0], text=text, spans=spans, metadata=metadata, origin=origin))


def edit(draft: Draft, arguments: Edit) -> None:
    chunk = _chunk(draft, arguments.key)
    if arguments.text == chunk.text:
        return
    origin: Literal["added", "edited"] = "added" if chunk.origin == "added" else "edited"
    spans = kept(chunk.text, chunk.spans, arguments.text)
    _put(draft, arguments.key, msgspec.structs.replace(chunk, text=arguments.text, spans=spans, origin=origin))


def insert(draft: Draft, arguments: Insert) -> None:
    beside = _beside(arguments.after, arguments.before)
    headings = [] if beside is None else _chunk(draft, beside).headings
    body = _plain(Chunk(arguments.text, headings=headings))
    draft.put(draft.new_key(CHUNKS), body, after=arguments.after, before=arguments.before)


def enable(draft: Draft, arguments: Enable) -> None:
    _switch(draft, arguments.keys, True)


def disable(draft: Draft, arguments: Disable) -> None:
    _switch(draft, arguments.keys, False)


def move(draft: Draft, arguments: Move) -> None:
    beside = _beside(arguments.after, arguments.before)
    if beside == arguments.key:
        raise InvalidChangeError("a chunk cannot stand next to itself", arguments.key)
    for key in (arguments.key, beside):
        if key is not None:
            _chunk(draft, key)
    draft.move(arguments.key, after=arguments.after, before=arguments.before)


def patch_metadata(draft: Draft, arguments: Metadata) -> None:
    chunk = _chunk(draft, arguments.key)
    _put(draft, arguments.key, msgspec.structs.replace(chunk, metadata=merged(chunk.metadata, arguments.patch)))


def check_chunk(item: Item) -> None:
    """A chunk has text, and its spans are runs of it, in order, each as long as what it stands for."""
    chunk = msgspec.json.decode(item.raw, type=Chunk)
    if not chunk.text.strip():
        raise InvalidItemError(item.key, "a chunk needs text; disable or delete it instead")
    if "\0" in chunk.text:
        raise InvalidItemError(item.key, "a NUL character is not text")
    reached = 0
    for span in chunk.spans:
        if span.start < 0 or span.end <= span.start or span.at < reached or span.at + span.length > len(chunk.text):
            raise InvalidItemError(item.key, "its spans do not fit its text")
        reached = span.at + span.length


def publish(session: Session) -> list[Record]:
    """A record for each enabled chunk, in order: its text, and what a citation needs."""
    name = session.header.source.get("name")
    records = []
    for item in session.collection(CHUNKS):
        chunk = msgspec.json.decode(item.raw, type=Chunk)
        if not chunk.enabled:
            continue
        body = {
            "title": session.header.title,
            "source": name,
            "headings": chunk.headings,
            "metadata": chunk.metadata,
            "spans": [{"at": span.at, "start": span.start, "end": span.end} for span in chunk.spans],
            "origin": chunk.origin,
        }
        records.append(Record(item.key, chunk.text, body, record_digest(chunk.text, body)))
    return records


def _chunk(draft: Draft, key: str) -> Chunk:
    if not key.startswith(CHUNKS + "/"):
        raise InvalidChangeError("this is no chunk", key)
    return msgspec.convert(draft.body(key), Chunk)


def _put(draft: Draft, key: str, chunk: Chunk) -> None:
    draft.put(key, _plain(chunk))


def _plain(chunk: Chunk) -> Any:
    return msgspec.to_builtins(chunk)


def _beside(after: str | None, before: str | None) -> str | None:
    if after is not None and before is not None:
        raise InvalidChangeError("name the neighbour by after or by before, not both")
    return before if after is None else after


def _switch(draft: Draft, keys: Sequence[str], enabled: bool) -> None:
    for key in keys:
        chunk = _chunk(draft, key)
        if chunk.enabled is not enabled:
            _put(draft, key, msgspec.structs.replace(chunk, enabled=enabled))


KIND = Kind(
    name="knowledge",
    schema=1,
    summary="Ordered chunks of an ingested source, published to a vector index in one switch.",
    bodies={CHUNKS: Chunk},
    publish=publish,
    sink="vectors",
    check_item=check_chunk,
    operations=(
        Operation("split", Split, split, "Cut a chunk in two."),
        Operation("merge", Merge, merge, "Join chunks that follow one another."),
        Operation("edit", Edit, edit, "Replace the text of a chunk."),
        Operation("insert", Insert, insert, "Add a chunk of one's own."),
        Operation("enable", Enable, enable, "Publish chunks that were disabled."),
        Operation("disable", Disable, disable, "Keep chunks out of what is published."),
        Operation("move", Move, move, "Place a chunk next to another."),
        Operation("metadata", Metadata, patch_metadata, "Patch the metadata of a chunk."),
    ),
    ingest=ingest,
)
