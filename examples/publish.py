"""A document from draft to search: previewed under a seal, published in one step, edited again, rolled back."""

import asyncio
import tempfile
from pathlib import Path

from holdfast import Principal, SealMismatchError, Settings, open_engine

ana = Principal("ana")
DOCUMENT = Path(__file__).with_name("tides.md")


async def main(home: Path) -> None:
    async with open_engine(Settings(home=home)) as engine:
        draft = await engine.ingest(ana, DOCUMENT.read_bytes(), DOCUMENT.name, target="tides")
        print(f"{draft.title}: {draft.count} chunks")

        preview = await engine.preview(draft.id, ana)
        print("publishing would add", preview.counts["added"], "and embed", preview.forecast.embeds)
        first = await engine.publish(draft.id, ana, seal=preview.seal)
        again = await engine.publish(draft.id, ana, seal=preview.seal)
        print("asked twice, one receipt:", first == again)
        print("found:", (await engine.search(ana, "which bay has the highest tides"))[0].key)

        # Edit again: a new draft of what was published, to take its place.
        second = await engine.reopen(draft.id, ana)
        await engine.operate(
            second.id, ana, "edit", {"key": "chunks/0001", "text": "Ask the harbour master."}, expected=1
        )
        preview = await engine.preview(second.id, ana)
        print("publishing would change", preview.counts["changed"], "and embed", preview.forecast.embeds)
        try:
            await engine.publish(second.id, ana, seal="a seal of something else")
        except SealMismatchError as error:
            print("refused:", error.code)
        await engine.publish(second.id, ana, seal=preview.seal)
        print("found:", (await engine.search(ana, "harbour master"))[0].text)

        receipt = await engine.rollback(second.id, ana)
        print("live again is the first:", receipt.revision == first.revision)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
