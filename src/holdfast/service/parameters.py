"""The parameters that many routes take, each declared once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Query

from holdfast.service.conditions import NAMES_STATE

SessionId = Annotated[str, Path(description="The session's id.", max_length=200)]
Collection = Annotated[str, Path(description="The item's collection: what stands before the slash of its key.")]
Name = Annotated[str, Path(description="The item's name: what stands after the slash of its key.")]

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The state you saw: the `ETag` of an answer, or a bare version in quotes. Without it a write is"
        " refused with 428; if the session has moved on, with 412 and the items that stand in the way.",
        json_schema_extra={"pattern": NAMES_STATE, "examples": ['"7.9-0123456789abcdef"', '"7"']},
    ),
]
StillAt = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="Only if the session is still at the version you saw: the `ETag` of an answer, or a bare version in"
        " quotes. Else it is refused with 412; steps of its life are no new version.",
        json_schema_extra={"pattern": NAMES_STATE, "examples": ['"7.9-0123456789abcdef"', '"7"']},
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match", description="A tag you hold: if it still stands, the answer is 304.", max_length=2000
    ),
]
ChangeId = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The change id: the same request sent again under it has no second effect and gets the first"
        " answer. Another request under it is refused.",
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7e]+$",  # beyond ASCII, what a header says depends on who reads it (RFC 9110, 5.5)
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`return=minimal` answers 204, `return=representation` with the whole session (RFC 7240).",
        max_length=200,
    ),
]
Rebase = Annotated[
    bool, Query(description="Land on a newer version too, if nothing you read or wrote has changed since.")
]
Operation = Annotated[
    str,
    Query(
        description="What history and feed call the edit: a lower-case word that no verb and no event has.",
        json_schema_extra={"pattern": r"^[a-z][a-z0-9-]{0,63}$"},
    ),
]
Group = Annotated[str | None, Query(description="Commits that share a group undo as one.", max_length=200)]
Fence = Annotated[int | None, Query(description="The number of the lease you hold.", ge=0, le=2**63 - 1)]
Version = Annotated[
    int | None, Query(description="As it stood at this version; the newest without it.", ge=0, le=2**53)
]
Limit = Annotated[int, Query(description="How many at most.", ge=1, le=1_000)]
After = Annotated[str | None, Query(description="The cursor of the page before.", max_length=500)]
