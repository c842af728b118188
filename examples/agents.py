"""Two agents share a draft through a lease. One is cut off, the other goes on, and the late write is refused."""

import asyncio
import tempfile
from pathlib import Path

from holdfast import LeaseHeldError, LeaseLostError, Principal, Settings, open_engine

crew = Principal("crew")  # both agents act for one principal; the lease tells them apart


async def main(home: Path) -> None:
    async with open_engine(Settings(home=home)) as engine:
        plan = await engine.create(crew, kind="knowledge", title="Plan", items=[("chunks/1", {"text": "Look around."})])

        first = await engine.lease(plan.id, crew, "agent-1", seconds=60)
        async with engine.edit(plan.id, crew, expected=1, fence=first.fence) as draft:
            draft.put("chunks/2", {"text": "Measure the harbour."})
        print(f"agent-1 wrote version {draft.result.version} with fence {first.fence}")

        try:
            await engine.lease(plan.id, crew, "agent-2")
        except LeaseHeldError as error:
            print(f"agent-2 waits: {error.holder} holds the lease")

        # Agent 1 hangs. Its supervisor gives the lease to agent 2; the fence grows.
        second = await engine.lease(plan.id, crew, "agent-2", force=True)
        async with engine.edit(plan.id, crew, expected=2, fence=second.fence) as draft:
            draft.put("chunks/3", {"text": "Draw the map."})
        print(f"agent-2 wrote version {draft.result.version} with fence {second.fence}")

        # Agent 1 wakes up and still believes it holds the lease.
        try:
            async with engine.edit(plan.id, crew, expected=3, fence=first.fence) as draft:
                draft.put("chunks/3", {"text": "Throw the map away."})
        except LeaseLostError as error:
            print(f"agent-1 is refused: fence {error.fence} is lost, {error.actual} has been granted")

        await engine.release(second, crew)
        print("the last line is", (await engine.read(plan.id, crew)).items[-1].body["text"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
