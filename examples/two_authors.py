"""Two authors, one draft: a clash is shown as a three-way conflict, and work on different items lands side by side."""

import asyncio
import tempfile
from pathlib import Path

from holdfast import Principal, Role, Settings, VersionConflictError, open_engine

ana, ben = Principal("ana"), Principal("ben")
ITEMS = [("chunks/when", {"text": "High tide is at nine."}), ("chunks/where", {"text": "At the harbour."})]


async def main(home: Path) -> None:
    async with open_engine(Settings(home=home)) as engine:
        session = await engine.create(ana, kind="knowledge", title="Tides", items=ITEMS)
        await engine.grant(session.id, ana, "ben", Role.EDITOR)

        # Ana commits first. Ben has read the same version.
        async with engine.edit(session.id, ana, expected=1) as draft:
            draft.put("chunks/when", {"text": "High tide is at ten."})
        try:
            async with engine.edit(session.id, ben, expected=1, rebase=True) as draft:
                draft.put("chunks/when", {"text": "High tide is at noon."})
        except VersionConflictError as error:
            for conflict in error.conflicts:
                print(f"{conflict.key}: version {error.expected} was seen, {error.actual} stands")
                print("  base  ", conflict.base["text"])
                print("  theirs", conflict.theirs["text"])
                print("  mine  ", conflict.mine["text"])

        # What Ben writes elsewhere lands, although he still names the version he saw.
        async with engine.edit(session.id, ben, expected=1, rebase=True) as draft:
            draft.put("chunks/where", {"text": "At the old harbour."})
        print("rebased onto version", draft.result.version)

        # And he merges what clashed by hand, on the newest version.
        now = await engine.read(session.id, ben)
        async with engine.edit(session.id, ben, expected=now.version) as draft:
            draft.put("chunks/when", {"text": "High tide is at ten, or at noon in winter."})
        for item in (await engine.read(session.id, ben)).items:
            print(item.key, "=", item.body["text"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
