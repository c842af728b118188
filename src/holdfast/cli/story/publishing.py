"""The second half: a draft is locked, published, edited again, rolled back, and thrown away."""

from __future__ import annotations

from holdfast.cli.output import counted
from holdfast.cli.story.story import ANA, Story, bodies, text_of
from holdfast.errors import RefusedError, SealMismatchError, SessionGoneError
from holdfast.model.session import Status
from holdfast.ports.sink import Hit

FIRST, SECOND = "marmalade harbour", "ultramarine windmill"
GONE, KEPT_BACK = "obsolete barometer", "confidential trapdoor"


async def lock(story: Story) -> str:
    version = await story.version()
    committed = await story.write("chunks/margin-0", f"A {GONE} stood here.", expected=version)
    committed = await story.write("chunks/margin-0", f"The {FIRST} opens at dawn.", expected=committed.version)
    async with story.engine.edit(story.id, ANA, expected=committed.version) as draft:
        draft.put("chunks/kept-back", {"text": f"The {KEPT_BACK} is nobody's business.", "enabled": False})
    story.check("before it is published, search finds nothing of it", not await _found(story, FIRST))
    preview = await story.engine.preview(story.id, ANA)
    session = await story.read()
    enabled = [item for item in session.items if item.body.get("enabled", True)]
    story.check("a preview locks the session", session.status is Status.LOCKED)
    story.check("for ana, until a time", session.header.lock is not None and session.header.lock.owner == "ana")
    story.check("it says what is new to readers", len(preview.differences) == len(enabled))
    forecast, distinct = preview.forecast, {text_of(item) for item in enabled}
    story.check("what it costs", (forecast.records, forecast.embeds) == (len(enabled), len(distinct)))
    story.check("that nothing is live yet", preview.live is None)
    await story.refused(
        "an edit is refused while it is locked",
        RefusedError,
        story.write("chunks/margin-0", "No.", expected=session.version),
    )
    await story.engine.unlock(story.id, ANA)
    story.check("unlocked, it is a draft again", (await story.read()).status is Status.DRAFT)
    again = await story.engine.preview(story.id, ANA)
    story.seal = again.seal
    return f"{counted(again.forecast.records, 'record')}, {again.forecast.embeds:,} to embed, seal {again.seal[:12]}"


async def publish(story: Story) -> str:
    await story.refused(
        "under another seal it is not published",
        SealMismatchError,
        story.engine.publish(story.id, ANA, seal=story.seal[::-1]),
    )
    receipt = await story.engine.publish(story.id, ANA, seal=story.seal)
    again = await story.engine.publish(story.id, ANA, seal=story.seal)
    session = await story.read()
    story.check(
        "the receipt names the version and the seal", (receipt.version, receipt.seal) == (session.version, story.seal)
    )
    story.check("and what was verified before the switch", receipt.manifest.count == len(session.items) - 1)
    story.check("asked for twice, it is the same receipt", again == receipt)
    story.check("the session is published", session.status is Status.PUBLISHED)
    await story.refused(
        "and is edited no more", RefusedError, story.write("chunks/margin-0", "No.", expected=session.version)
    )
    story.first, story.published = receipt, story.id
    return f"revision {str(receipt.revision)[:12]}, {counted(receipt.manifest.count, 'record')}"


async def search(story: Story) -> str:
    hits = await _found(story, FIRST)
    story.check("search finds what was published", len(hits) == 1)
    best = (await story.engine.search(ANA, FIRST))[0]
    story.check("as the best hit", hits and best.key == hits[0].key)
    story.check("with the document's title, to cite it by", best.body["title"] == (await story.read()).title)
    story.check("what was edited out is not found", not await _found(story, GONE))
    story.check("nor what was kept back", not await _found(story, KEPT_BACK))
    return f"{FIRST!r}: {best.score:.2f}"


async def edit_again(story: Story) -> str:
    old = await story.read()
    draft = await story.engine.reopen(story.id, ANA)
    story.check("editing again opens another session, a draft", draft.id != story.id and draft.status is Status.DRAFT)
    story.check("that starts from what was published", bodies(draft) == bodies(old))
    story.id = draft.id
    await story.write("chunks/margin-0", f"The {SECOND} turns at noon.", expected=draft.version)
    story.check("readers see nothing of it", await _found(story, FIRST) and not await _found(story, SECOND))
    preview = await story.engine.preview(story.id, ANA)
    story.check("the preview names the one change", [one.key for one in preview.differences] == ["chunks/margin-0"])
    story.check("and only that is embedded anew", preview.forecast.embeds == 1)
    receipt = await story.engine.publish(story.id, ANA, seal=preview.seal)
    story.check(
        "the second revision follows the first", story.first is not None and receipt.previous == story.first.revision
    )
    story.check("search finds the new words", await _found(story, SECOND))
    story.check("and the old ones no more", not await _found(story, FIRST))
    return f"1 of {preview.forecast.records} embedded again"


async def roll_back(story: Story) -> str:
    receipt = await story.engine.rollback(story.id, ANA)
    story.check(
        "what was live before is live again", story.first is not None and receipt.revision == story.first.revision
    )
    story.check("search finds the old words", await _found(story, FIRST))
    story.check("and the withdrawn ones no more", not await _found(story, SECOND))
    kept = await story.engine.receipts(story.id, ANA)
    story.check("publication and rollback both left a receipt", len(kept) == 2)
    return f"revision {str(receipt.revision)[:12]} is live"


async def discard(story: Story) -> str:
    draft = await story.engine.reopen(story.published, ANA)
    story.id = draft.id
    await story.write("chunks/margin-0", "Thrown away.", expected=draft.version)
    was = await story.read()
    header = await story.engine.discard(story.id, ANA)
    story.check("a discarded session is kept for a while", header.restorable_until is not None)
    error = await story.refused("reading it says gone, not unknown", SessionGoneError, story.read())
    story.check("and until when it can be brought back", error.restorable_until is not None)
    await story.engine.revive(story.id, ANA)
    now = await story.read()
    story.check("revived, it is all there", bodies(now) == bodies(was) and now.status is Status.DRAFT)
    undone = await story.engine.undo(story.id, ANA, expected=now.version)
    story.check(
        "its history too", undone.changes and text_of((await story.read()).get("chunks/margin-0")) != "Thrown away."
    )
    await story.engine.discard(story.id, ANA)
    await story.refused("and discarded again, it is gone again", SessionGoneError, story.read())
    story.check("readers never noticed", await _found(story, FIRST))
    story.id = story.published
    return "discarded, revived, discarded"


async def _found(story: Story, words: str) -> list[Hit]:
    """Hits that hold the very words: a search gives the nearest records, whatever they say."""
    return [hit for hit in await story.engine.search(ANA, words, limit=20) if words in hit.text]


STEPS = (
    ("preview and lock", lock),
    ("publish", publish),
    ("search", search),
    ("edit again", edit_again),
    ("roll back", roll_back),
    ("discard", discard),
)
