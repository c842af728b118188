"""The suite for kinds: what every declaration must keep to, checked without an engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from holdfast.errors import InvalidError
from holdfast.model import order
from holdfast.model.item import Item, check_key, encode_body
from holdfast.model.limits import Limits
from holdfast.model.session import LIFECYCLE, Header, Session, Status
from holdfast.ports.kind import Kind
from holdfast.ports.sink import Record, record_digest

Pairs = Sequence[tuple[str, Any]]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ENGINE_VERBS = frozenset(LIFECYCLE) - {"edit"} | {
    "create",
    "ingest",
    "undo",
    "redo",
    "restore",
    "read",
    "history",
    "diff",
}
_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class KindSuite:
    """Subclass it and give ``kind`` and ``bodies``, and where there are any ``broken`` and ``sources``."""

    @pytest.fixture
    def kind(self) -> Kind:
        raise NotImplementedError("the binding of the suite gives `kind`")

    @pytest.fixture
    def bodies(self) -> Pairs:
        """Keys and bodies of a session that makes sense, at least one of each collection."""
        raise NotImplementedError("the binding of the suite gives `bodies`")

    @pytest.fixture
    def broken(self) -> Pairs:
        """Keys and bodies each of which is to be refused."""
        return ()

    @pytest.fixture
    def sources(self) -> Sequence[tuple[bytes, str]]:
        """Documents, with a file name, that can be ingested."""
        return ()

    # -- the declaration ---------------------------------------------------------------------------------------------

    def test_it_says_what_it_is(self, kind: Kind) -> None:
        assert _NAME.fullmatch(kind.name)
        assert kind.schema >= 1
        assert kind.summary.endswith(".")
        assert kind.sink

    def test_bodies_are_structs_that_admit_no_unknown_field(self, kind: Kind) -> None:
        assert kind.bodies
        for collection, body in kind.bodies.items():
            check_key(f"{collection}/name")
            assert issubclass(body, msgspec.Struct)
            assert body.__struct_config__.forbid_unknown_fields
            assert body.__doc__

    def test_operations_are_typed_described_and_named_apart(self, kind: Kind) -> None:
        names = [operation.name for operation in kind.operations]
        assert len(set(names)) == len(names)
        assert _ENGINE_VERBS.isdisjoint(names)
        for operation in kind.operations:
            assert _NAME.fullmatch(operation.name)
            assert operation.summary.endswith(".")
            assert "\n" not in operation.summary
            assert issubclass(operation.arguments, msgspec.Struct)
            assert operation.arguments.__struct_config__.forbid_unknown_fields
            assert operation.arguments.__doc__
            assert kind.operation(operation.name) is operation

    def test_arguments_have_a_schema_for_forms_and_tools(self, kind: Kind) -> None:
        for operation in kind.operations:
            schema = msgspec.json.schema(operation.arguments)
            assert msgspec.json.decode(msgspec.json.encode(schema)) == schema

    # -- bodies ------------------------------------------------------------------------------------------------------

    def test_bodies_that_make_sense_are_admitted(self, kind: Kind, bodies: Pairs) -> None:
        assert {key.partition("/")[0] for key, _ in bodies} == set(kind.bodies)
        admit(kind, bodies)

    def test_bodies_that_make_no_sense_are_refused(self, kind: Kind, broken: Pairs) -> None:
        for key, body in broken:
            with pytest.raises(InvalidError):
                admit(kind, [(key, body)])

    def test_an_unknown_field_is_refused(self, kind: Kind, bodies: Pairs) -> None:
        for key, body in bodies:
            with pytest.raises(InvalidError):
                admit(kind, [(key, {**body, "no such field": 1})])

    # -- ingest ------------------------------------------------------------------------------------------------------

    def test_what_is_ingested_is_a_valid_session(self, kind: Kind, sources: Any) -> None:
        assert bool(sources) == (kind.ingest is not None)
        for data, name in sources:
            assert kind.ingest is not None
            made = kind.ingest(data, name)
            assert made.title.strip()
            assert len({key for key, _ in made.items}) == len(made.items)
            admit(kind, made.items)
            msgspec.json.encode(made.source)

    def test_the_same_source_makes_the_same_items(self, kind: Kind, sources: Any) -> None:
        for data, name in sources:
            assert kind.ingest is not None
            assert kind.ingest(data, name) == kind.ingest(data, name)

    # -- publish -----------------------------------------------------------------------------------------------------

    def test_published_records_have_keys_of_their_own_and_true_digests(self, kind: Kind, bodies: Pairs) -> None:
        records = kind.publish(session_of(kind, bodies))
        assert records
        assert len({record.key for record in records}) == len(records)
        for record in records:
            assert record.digest == record_digest(record.text, record.body)

    def test_publishing_is_a_function_of_the_session_alone(self, kind: Kind, bodies: Pairs) -> None:
        session = session_of(kind, bodies)
        records = kind.publish(session)
        assert kind.publish(session) == records
        assert kind.publish(session_of(kind, bodies)) == records
        stored = msgspec.json.decode(msgspec.json.encode(records), type=list[Record])
        assert [record_digest(record.text, record.body) for record in stored] == [record.digest for record in records]

    def test_digests_do_not_depend_on_places(self, kind: Kind, bodies: Pairs) -> None:
        there = {record.key: record.digest for record in kind.publish(session_of(kind, bodies))}
        back = {record.key: record.digest for record in kind.publish(session_of(kind, list(reversed(bodies))))}
        assert there == back


def session_of(kind: Kind, pairs: Pairs, *, title: str = "A title", source: dict[str, Any] | None = None) -> Session:
    """A session with these items, in this order, as an engine would hand it to a publisher."""
    limits = Limits()
    items = {}
    for (key, body), position in zip(pairs, order.spread(None, None, len(pairs)), strict=True):
        check_key(key)
        items[key] = Item(key, position, encode_body(key, body, depth=limits.depth, size=limits.item_bytes), 1, 1)
    header = Header(
        id="s1",
        tenant="default",
        kind=kind.name,
        schema=kind.schema,
        owner="ana",
        status=Status.DRAFT,
        created=_NOW,
        updated=_NOW,
        title=title,
        version=1,
        step=1,
        source=source or {},
    )
    return Session(header, items)


def admit(kind: Kind, pairs: Pairs) -> None:
    """Check bodies as an engine does: by type, each by itself, and together; raises ``InvalidError``."""
    session = session_of(kind, pairs)
    for item in session.items:
        body = kind.bodies.get(item.collection)
        if body is None:
            raise InvalidError(f"no collection {item.collection!r}")
        try:
            msgspec.json.decode(item.raw, type=body)
        except msgspec.ValidationError as error:
            raise InvalidError(str(error)) from None
        kind.check_item(item)
    kind.check(session.by_key, frozenset(session.by_key))
