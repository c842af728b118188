"""Which value has which form: one table for what is sent, and back again for what is received."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from holdfast.engine.catalogue import Page
from holdfast.engine.editing import Committed
from holdfast.engine.feed import FeedPage
from holdfast.errors import ServiceError
from holdfast.model.entry import Entry
from holdfast.model.item import Item
from holdfast.model.session import Header, Session
from holdfast.wire.entries import EntryForm, FeedForm
from holdfast.wire.sessions import CommittedForm, ItemForm, PageForm, SessionForm, WholeForm, whole

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class Form(NamedTuple):
    """The JSON form of a type, and the way there and back."""

    form: type
    to: Callable[[Any], Any]
    back: Callable[[Any], Any]


FORMS: Mapping[type, Form] = {
    Header: Form(SessionForm, SessionForm.of, SessionForm.header),
    Session: Form(WholeForm, lambda session: msgspec.Raw(whole(session)), WholeForm.session),
    Item: Form(ItemForm, ItemForm.of, ItemForm.item),
    Committed: Form(CommittedForm, CommittedForm.of, CommittedForm.committed),
    Page: Form(PageForm, PageForm.of, PageForm.page),
    Entry: Form(EntryForm, EntryForm.of, EntryForm.entry),
    FeedPage: Form(FeedForm, FeedForm.of, FeedForm.page),
}
"""Values that are sent in another form than they are kept in; every other struct is sent as it stands."""


def form_of(kind: type) -> type:
    """The type that is sent for a value of a type."""
    return FORMS[kind].form if kind in FORMS else kind


def form(value: Any) -> Any:
    """A value, or a list of values, in the form it is sent in."""
    if isinstance(value, list | tuple):
        return [form(one) for one in value]
    found = FORMS.get(type(value))
    return value if found is None else found.to(value)


def encode(value: Any) -> bytes:
    """A value as the JSON bytes that are sent."""
    return _encode(form(value))


def decode(data: bytes, kind: type[T]) -> T:
    """A value from the JSON bytes that were received.

    Raises:
        ServiceError: it is not what was to be sent: another service, or another version of it.
    """
    found = FORMS.get(kind)
    try:
        if found is None:
            return msgspec.json.decode(data, type=kind)
        return cast(T, found.back(msgspec.json.decode(data, type=found.form)))
    except (msgspec.MsgspecError, ValueError) as error:
        raise ServiceError(f"The answer is not one of Holdfast's ({error}).") from None


def decode_list(data: bytes, kind: type[T]) -> list[T]:
    """A list of values from the JSON bytes that were received; raises as ``decode`` does."""
    found = FORMS.get(kind)
    try:
        if found is None:
            return msgspec.json.decode(data, type=list[kind])  # type: ignore[valid-type]
        return [found.back(one) for one in msgspec.json.decode(data, type=list[found.form])]  # type: ignore[name-defined]
    except (msgspec.MsgspecError, ValueError) as error:
        raise ServiceError(f"The answer is not one of Holdfast's ({error}).") from None
