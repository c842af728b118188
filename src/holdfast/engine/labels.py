"""Names for versions. A label is a note of its session: setting one is a step of the log, not a commit."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from holdfast.engine.history import History
from holdfast.engine.lifecycle import Lifecycle, Sent, Turn
from holdfast.engine.opened import Opened
from holdfast.errors import InvalidChangeError, LabelNotFoundError
from holdfast.model.limits import Limits, check_limit
from holdfast.ports.clock import Clock

_NOTES = "_labels/"
_MOST_NAME = 200


class Label(msgspec.Struct, frozen=True):
    """A name for a version, who gave it, and when."""

    name: str
    version: int
    actor: str
    at: datetime


class Labels:
    """Sets and reads the labels of sessions."""

    def __init__(self, lifecycle: Lifecycle, history: History, clock: Clock, limits: Limits) -> None:
        self._lifecycle, self._history, self._clock, self._limits = lifecycle, history, clock, limits

    async def set(self, opened: Opened, actor: str, name: str, version: int | None, sent: Sent) -> Label:
        """Name a version, the newest by default; a name used before moves."""
        if not 1 <= len(name) <= _MOST_NAME or not name.isprintable():
            raise InvalidChangeError(f"a label has 1 to {_MOST_NAME} printable characters")
        if name.isdigit() or (name[:1] in "vV" and name[1:].isdigit()):
            raise InvalidChangeError("a label such as 3 or v3 would read as a version; add a word")

        def decide(now: Opened) -> Turn:
            self._history.check_version(now, version)
            return self.turn(now, actor, name, version)

        following = await self._lifecycle.step(opened, "label", actor, decide, notes=True, sent=sent)
        return self.get(following, name)

    def turn(self, now: Opened, actor: str, name: str, version: int | None = None) -> Turn:
        """The step that sets a label."""
        label = Label(name, now.header.version if version is None else version, actor, self._clock.now())
        header, key = now.header, _NOTES + name
        if key not in now.notes:
            check_limit("labels in a session", header.labels + 1, self._limits.labels)
            header = replace(header, labels=header.labels + 1)
        return Turn(header, {key: label}, {"label": name, "version": label.version})

    def get(self, opened: Opened, name: str) -> Label:
        """A label by name, or ``LabelNotFoundError``."""
        note = opened.notes.get(_NOTES + name)
        if note is None:
            raise LabelNotFoundError(name)
        return msgspec.json.decode(note.raw, type=Label)

    def all(self, opened: Opened) -> list[Label]:
        """The session's labels, newest version first."""
        names = [key.removeprefix(_NOTES) for key in opened.notes if key.startswith(_NOTES)]
        return sorted((self.get(opened, name) for name in names), key=lambda label: (-label.version, label.name))
