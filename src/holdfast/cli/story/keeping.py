"""What holds it all together: the record of what was done, keys, sealing at rest, and verification."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise

import msgspec

from holdfast.cli.output import counted, sized
from holdfast.cli.story.story import ADMIN, ANA, Story, bodies, home_files
from holdfast.compose import open_engine
from holdfast.errors import IntegrityError
from holdfast.model.entry import Entry


async def remember(story: Story) -> str:
    first = await story.engine.feed(story.id, ANA, limit=5)
    rest = await story.engine.feed(story.id, ANA, after=first.cursor, limit=1000)
    steps = [entry.step for entry in (*first.entries, *rest.entries)]
    story.check("the feed gives every step once, in order", steps == list(range(1, len(steps) + 1)))
    history = await story.engine.history(story.id, ANA, limit=1000)
    commits = [entry.version for entry in reversed(history) if entry.commit]
    story.check(
        "versions are contiguous and never reused", commits == list(range(commits[0], commits[0] + len(commits)))
    )
    story.check("each entry names the digest of the one before", _chained(history))
    lines = await story.engine.audit(ANA, session_id=story.id, limit=1000)
    outcomes = {line.outcome for line in lines}
    story.check(
        "the audit log holds what was refused, too", {"ok", "version-conflict", "permission-denied"} <= outcomes
    )
    return f"{counted(len(steps), 'entry', 'entries')}, {counted(len(lines), 'audit line')}"


async def rotate_keys(story: Story) -> str:
    was = await story.read()
    old = (await story.engine.keys(ADMIN)).active
    rotated = await story.engine.rotate_keys(ADMIN)
    ring = await story.engine.keys(ADMIN)
    story.check("a new key is active", ring.active != old and ring.active == rotated.key_id)
    story.check("every session's key is wrapped under it", rotated.sessions >= 3)
    story.check("and the session reads as before", bodies(await story.read()) == bodies(was))
    await story.close()
    await story.open()
    story.check("after a restart, too", bodies(await story.read()) == bodies(was))
    return f"{counted(rotated.sessions, 'session')} under key {rotated.key_id}"


async def sealed(story: Story) -> str:
    word = story.canary.encode()
    history = await story.engine.history(story.id, ANA, limit=1000)
    written = [change for entry in history for change in entry.changes if word in bytes(change.body or b"")]
    story.check("the canary was written, more than once", len(written) > 1)
    await story.close()
    files = home_files(story.settings)
    held = {path: path.read_bytes() for path in files}
    size = sum(len(data) for data in held.values())
    story.check("there is a database to look into", any(path.name == "holdfast.sqlite" for path in files) and size > 0)
    story.check("no file that keeps sessions holds it in clear", not [path for path in files if word in held[path]])
    line = max((line.strip() for line in story.document.split(b"\n")), key=len)
    line = line if len(line) > len(word) else word  # a few bytes can stand anywhere by chance
    story.check("nor the document's longest line", not [path for path in files if line in held[path]])
    story.check("the key file is its owner's alone", story.settings.key_path.stat().st_mode & 0o077 == 0)
    await story.open()
    return f"{counted(len(files), 'file')}, {sized(size)}, no canary"


async def verify(story: Story) -> str:
    verified = [one async for one in story.engine.verify(ADMIN)]
    story.check("every session was looked at", len({one.session for one in verified if one.session}) >= 2)
    bad = [f"{problem.code} {problem.what}" for one in verified for problem in one.problems]
    story.check("and everything adds up", not bad, "; ".join(bad))
    return (
        f"{counted(len(verified), 'part')}, {counted(sum(one.entries for one in verified), 'log entry', 'log entries')}"
    )


async def tamper(story: Story) -> str:
    settings = msgspec.structs.replace(story.settings, home=story.settings.home.with_name("tampered"))
    await story.close()
    shutil.copytree(story.settings.home, settings.home)
    with closing(sqlite3.connect(settings.home / "holdfast.sqlite")) as database, database:
        row, blob = database.execute(
            "SELECT item.rowid, item.sealed FROM item JOIN session ON session.no = item.session WHERE session.id = ?"
            " ORDER BY length(item.sealed) DESC LIMIT 1",
            (story.id,),
        ).fetchone()
        flipped = bytearray(blob)
        flipped[len(flipped) // 2] ^= 1
        database.execute("UPDATE item SET sealed = ? WHERE rowid = ?", (bytes(flipped), row))
    async with open_engine(settings) as copy:
        verified = [one async for one in copy.verify(ADMIN)]
        bad = {one.session for one in verified if not one.ok}
        story.check("one bit flipped in a copy, and verify names the session", bad == {story.id})
        await story.refused("reading that session is refused", IntegrityError, copy.read(story.id, ANA))
        live = (await copy.find(ANA, status="published")).headers
        other = next(header.id for header in live if header.id != story.id)
        story.check("the other sessions are not touched by it", (await copy.read(other, ANA)).items)
    await story.open()
    story.check("and the original is whole", (await story.read()).items)
    return f"1 bit of {counted(len(blob), 'byte')}"


STEPS = (
    ("feed and audit", remember),
    ("rotate keys", rotate_keys),
    ("sealed at rest", sealed),
    ("verify", verify),
    ("tamper with a copy", tamper),
)


def _chained(newest_first: list[Entry]) -> bool:
    return all(later.header.parent == earlier.digest for later, earlier in pairwise(newest_first))
