"""The first half: a document becomes a draft, and what can happen to a draft."""

from __future__ import annotations

import asyncio

from holdfast.cli.output import counted
from holdfast.cli.story.story import ANA, BEN, CHUNKS_WANTED, Story, bodies, text_of, texts
from holdfast.compose import open_engine
from holdfast.engine.editing import Committed
from holdfast.errors import (
    ChangeIdReusedError,
    PermissionDeniedError,
    SessionNotFoundError,
    VersionConflictError,
)
from holdfast.model.access import Role
from holdfast.model.session import Status


async def ingest(story: Story) -> str:
    session = await story.engine.ingest(ANA, story.document, story.name)
    story.id = session.id
    source = story.document.decode("utf-8-sig")
    pieces = texts(session)
    story.check("the session is a draft, and ana owns it", session.status is Status.DRAFT and session.owner == "ana")
    story.check("it has a title and a version", bool(session.title) and session.version >= 1)
    story.check("every chunk has text that stands in the document", pieces and all(piece in source for piece in pieces))
    last = [line for line in source.split("\n") if line.strip()][-1].strip()
    story.check("the document's end is there", any(last in piece for piece in pieces))
    return f"{story.name}: {counted(len(pieces), 'chunk')}, version {session.version}"


async def read_back(story: Story) -> str:
    page = await story.engine.find(ANA)
    story.check("it is in ana's list", story.id in {header.id for header in page.headers})
    here = await story.read()
    async with open_engine(story.settings) as other:
        there = await other.read(story.id, ANA)
    story.check("a second engine on the same home reads the same bytes", bodies(there) == bodies(here))
    story.check("and the same digest", there.header.digest == here.header.digest)
    await story.refused(
        "to ben it looks like no session at all", SessionNotFoundError, story.engine.read(story.id, BEN)
    )
    listed = {header.id for header in (await story.engine.find(BEN)).headers}
    story.check("and is not in his list", story.id not in listed)
    return f"{counted(len(here.items), 'item')}, digest {here.header.digest.hex()[:12]}"


async def edit(story: Story) -> str:
    was = await story.read()
    async with story.engine.edit(story.id, ANA, expected=was.version) as draft:
        for number in range(max(1, CHUNKS_WANTED - len(was.items))):
            note = f"A note in the margin, number {number}: {story.canary} was written before anyone published it."
            draft.put(f"chunks/margin-{number}", {"text": note})
    committed = draft.committed
    story.check("one commit makes one version", committed is not None and committed.version == was.version + 1)
    now = await story.read()
    story.check("it is on disk when it is acknowledged", committed is not None and committed.durability == "disk")
    story.check("reading gives what was written", story.canary in text_of(now.get("chunks/margin-0")))
    story.check("nothing else changed", all(bodies(now)[key] == raw for key, raw in bodies(was).items()))
    try:
        async with story.engine.edit(story.id, ANA, expected=now.version) as draft:
            draft.delete("chunks/margin-0")
            raise LookupError
    except LookupError:
        pass
    story.check("an exception inside the block rolls all of it back", bodies(await story.read()) == bodies(now))
    return f"version {now.version}, {counted(len(now.items), 'item')}"


async def stale_edit(story: Story) -> str:
    seen = await story.read()
    key = "chunks/margin-0"
    await story.write(key, "Written in another tab.", expected=seen.version)
    error = await story.refused(
        "an edit of what has moved on is refused",
        VersionConflictError,
        story.write(key, "Written in this tab.", expected=seen.version),
    )
    story.check(
        "it says which version was seen and which stands",
        (error.expected, error.actual) == (seen.version, seen.version + 1),
    )
    conflict = next((conflict for conflict in error.conflicts if conflict.key == key), None)
    story.check("it names the item in conflict", conflict is not None)
    base, theirs, mine = (getattr(conflict, side)["text"] for side in ("base", "theirs", "mine"))
    story.check("with what it was before both", story.canary in base)
    story.check("with theirs", theirs == "Written in another tab.")
    story.check("and with mine", mine == "Written in this tab.")
    story.check("and nothing was written", text_of((await story.read()).get(key)) == "Written in another tab.")
    return f"version {seen.version} was seen, {error.actual} stood"


async def same_change_id(story: Story) -> str:
    version = await story.version()
    said = {"key": "chunks/margin-0", "text": f"Said once: {story.canary}."}

    async def send(text: str) -> Committed:
        return await story.engine.operate(
            story.id, ANA, "edit", {**said, "text": text}, expected=version, change_id="demo-resend"
        )

    first = await send(said["text"])
    again = await send(said["text"])
    story.check(
        "the same change again gives the first answer", (again.version, again.digest) == (first.version, first.digest)
    )
    story.check("and says that it is a resend", again.replayed and not first.replayed)
    story.check("and makes no second version", await story.version() == first.version)
    await story.refused("the same id with another body is refused", ChangeIdReusedError, send("Something else."))
    return f"version {first.version}, twice"


async def split(story: Story) -> str:
    was = await story.read()
    story.remembered = bodies(was)
    longest = max(was.items, key=lambda item: len(text_of(item).strip()))
    text = text_of(longest)
    at = _between_words(text)
    committed = await story.operate("split", key=longest.key, at=at)
    now = await story.read()
    keys = [item.key for item in now.items]
    left = keys.index(longest.key)
    story.check("there is one chunk more", len(keys) == len(was.items) + 1)
    story.check(
        "the halves follow each other and hold the whole text",
        text_of(now.items[left]) + text_of(now.items[left + 1]) == text,
    )
    story.check("two items changed, however long the document", len(committed.changes) == 2)
    return f"{longest.key} before character {at}"


async def merge(story: Story) -> str:
    was = await story.read()
    changed = [item.key for item in was.items if item.version == was.version]
    await story.operate("merge", keys=changed, separator="")
    now = await story.read()
    story.check("there is one chunk less", len(now.items) == len(was.items) - 1)
    joined = "".join(text_of(was.get(key)) for key in changed)
    story.check("it holds both texts", text_of(now.get(changed[0])) == joined)
    left = [item.key for item in was.items if item.key not in changed[1:]]
    story.check("in the place of the first", [item.key for item in now.items] == left)
    return f"{' and '.join(changed)} are {changed[0]}"


async def undo_and_redo(story: Story) -> str:
    merged = await story.read()
    told = await story.engine.preview_undo(story.id, ANA)
    story.check("a preview of the undo changes nothing", await story.version() == merged.version)
    first = await story.engine.undo(story.id, ANA, expected=merged.version)
    story.check("undo does what its preview said", {difference.key for difference in told} == set(first.changes))
    halves = await story.read()
    story.check("the merge is undone", len(halves.items) == len(merged.items) + 1)
    second = await story.engine.undo(story.id, ANA, expected=first.version)
    whole = await story.read()
    story.check("and the split before it", bodies(whole) == story.remembered)
    third = await story.engine.redo(story.id, ANA, expected=second.version)
    story.check("redo gives the very bytes back", bodies(await story.read()) == bodies(halves))
    story.check("each of them is a new version", third.version == merged.version + 3)
    return "undo, undo, redo"


async def restart(story: Story) -> str:
    was = await story.read()
    await story.close()
    await story.open()
    now = await story.read()
    story.check(
        "closed and opened again, it is what it was",
        bodies(now) == bodies(was) and now.header.digest == was.header.digest,
    )
    undone = await story.engine.undo(story.id, ANA, expected=now.version)
    story.check("undo reaches back beyond the restart", undone.version == now.version + 1 and undone.changes)
    redone = await story.engine.redo(story.id, ANA, expected=undone.version)
    story.check("and so does redo", bodies(await story.read()) == bodies(was) and redone.changes)
    return f"version {redone.version}"


async def label_and_restore(story: Story) -> str:
    good = await story.read()
    label = await story.engine.label(story.id, ANA, "before the flood")
    story.check("a label names the version it was given to", label.version == good.version)
    async with story.engine.edit(story.id, ANA, expected=good.version) as draft:
        for item in good.items[1:]:
            draft.delete(item.key)
    flooded = await story.read()
    story.check("one edit empties the session", len(flooded.items) == 1)
    committed = await story.engine.restore(story.id, ANA, "before the flood", expected=flooded.version)
    now = await story.read()
    story.check("restoring the label brings every byte back", bodies(now) == bodies(good))
    story.check("in the old order", [item.key for item in now.items] == [item.key for item in good.items])
    story.check("as a new version", committed.version == flooded.version + 1)
    past = await story.engine.read(story.id, ANA, version=flooded.version)
    story.check("what it replaced can still be read", bodies(past) == bodies(flooded))
    return f"{counted(len(good.items) - 1, 'item')} deleted and brought back"


async def difference(story: Story) -> str:
    was = await story.read()
    key = "chunks/margin-0"
    text = text_of(was.get(key))
    await story.write(key, text.replace("once", "twice"), expected=was.version)
    found = await story.engine.diff(story.id, ANA, was.version, was.version + 1)
    story.check("one item differs, and is named", [(one.key, one.verb) for one in found] == [(key, "changed")])
    runs = [word for one in found[0].texts for word in one.words]
    story.check("one word went", [word.text for word in runs if word.op == "-"] == ["once"])
    story.check("and one came", [word.text for word in runs if word.op == "+"] == ["twice"])
    story.check("the rest of the text stayed", "".join(word.text for word in runs if word.op != "+") == text)
    return "Said [-once-]{+twice+}"


async def race(story: Story) -> str:
    version = await story.version()

    async with open_engine(story.settings) as other:
        engines = [story.engine, other] * 4

        async def attempt(number: int) -> Committed:
            arguments = {"key": "chunks/margin-0", "text": f"Writer {number} was here with {story.canary}."}
            return await engines[number].operate(story.id, ANA, "edit", arguments, expected=version)

        results = await asyncio.gather(*(attempt(number) for number in range(8)), return_exceptions=True)
    won = [number for number, result in enumerate(results) if isinstance(result, Committed)]
    lost = [result for result in results if isinstance(result, VersionConflictError)]
    story.check("of eight writers in two engines, one wins", len(won) == 1)
    story.check("the other seven are told so", len(lost) == 7)
    now = await story.read()
    story.check(
        "what stands is what the winner wrote", text_of(now.get("chunks/margin-0")).startswith(f"Writer {won[0]} ")
    )
    story.check("and it is one version on", now.version == version + 1)
    return f"writer {won[0]} won, 7 were refused"


async def rebase(story: Story) -> str:
    was = await story.read()
    keys = [item.key for item in was.items][:6]
    done = await asyncio.gather(
        *(story.write(key, f"{text_of(was.get(key))}\n\nRebased.", expected=was.version, rebase=True) for key in keys)
    )
    now = await story.read()
    story.check("six writers of different items, all from one version, all land", len(done) == 6)
    story.check(
        "at six versions, one after the other",
        sorted(one.version for one in done) == [was.version + n for n in range(1, 7)],
    )
    story.check("and every word of theirs is there", all(text_of(now.get(key)).endswith("Rebased.") for key in keys))
    await story.refused(
        "the same item, though, is a conflict",
        VersionConflictError,
        story.write(keys[0], "Mine.", expected=was.version, rebase=True),
    )
    return f"version {was.version} to {now.version}"


async def share(story: Story) -> str:
    await story.engine.grant(story.id, ANA, BEN.id, Role.VIEWER)
    seen = await story.read(BEN)
    story.check("a viewer may read", seen.id == story.id)
    await story.refused(
        "and not write", PermissionDeniedError, story.write("chunks/margin-0", "Ben.", expected=seen.version, who=BEN)
    )
    await story.engine.grant(story.id, ANA, BEN.id, None)
    await story.refused("once taken back, there is no session again", SessionNotFoundError, story.read(BEN))
    return "ben: viewer, then stranger"


STEPS = (
    ("ingest", ingest),
    ("read back", read_back),
    ("edit", edit),
    ("a stale edit", stale_edit),
    ("the same change again", same_change_id),
    ("split", split),
    ("merge", merge),
    ("undo, undo, redo", undo_and_redo),
    ("restart", restart),
    ("label and restore", label_and_restore),
    ("difference in words", difference),
    ("a race", race),
    ("rebase", rebase),
    ("share", share),
)


def _between_words(text: str) -> int:
    """A place near the middle of a text with words on both sides."""
    middle = len(text) // 2
    blanks = [
        at for at, character in enumerate(text) if character.isspace() and text[:at].strip() and text[at:].strip()
    ]
    return min(blanks, key=lambda at: abs(at - middle), default=max(1, middle))
