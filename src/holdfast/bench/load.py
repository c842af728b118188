"""A load on a fleet: a crowd of authors, with a replica killed every so often if so planned, and what it comes to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from holdfast.bench.crowd import Crowd, Findings, Plan
from holdfast.bench.figures import Moment, Used, Verb, Watch
from holdfast.testing.fleet import Fleet


class Report(msgspec.Struct):
    """What a load came to.

    Attributes:
        offered, rate: requests a second, as planned and as answered; an answer that took several tries is one.
        failed: the share of tries that got an error of the service, or no answer.
        given_up: requests that nobody answered; refused: those that an author was not to be refused, by code.
        stale: reads that were marked as perhaps not the newest.
        client_cpu: of the crowd itself, as a share of one processor; client_late_p99: by how many ms requests went out
            after they were due.
        verified: what ``verify`` has looked at afterwards; problems: what it has found. Filled in by who verifies.
    """

    plan: Plan
    replicas: int
    offered: float
    rate: float
    requests: int
    tries: int
    failed: float
    given_up: int
    refused: dict[str, int]
    stale: int
    kills: int
    verbs: list[Verb]
    answers: dict[str, int]
    used: list[Used]
    client_cpu: float
    client_late_p99: float
    moments: list[Moment]
    findings: Findings
    verified: int = 0
    problems: list[str] = []

    def lines(self) -> list[str]:
        """For people."""
        peak = max(self.moments, key=lambda moment: moment.queue, default=None)
        behind = "no figures" if peak is None else f"queue at most {peak.queue}, lag at most {self._lag:.2f} s"
        return [
            f"{self.plan.sessions:,} sessions, {self.replicas} replicas, {self.plan.seconds:g} s,"
            f" {self.kills} kills: offered {self.offered:.0f}/s, answered {self.rate:.0f}/s",
            f"failed tries {self.failed:.4%} of {self.tries:,}, given up {self.given_up}, refused {self.refused},"
            f" stale {self.stale}; answers {self.answers}",
            *(
                f"  {one.verb:16} {one.count:8,}  p50 {one.p50:8.2f}  p95 {one.p95:8.2f}  p99 {one.p99:8.2f}"
                f"  most {one.most:8.1f} ms"
                for one in self.verbs
            ),
            f"flush: {behind}",
            *(
                f"  {one.process:12} memory {one.first:7.1f} -> {one.last:7.1f} MiB, most {one.most:7.1f};"
                f" processor {one.cpu:.0%}"
                for one in self.used
            ),
            f"client: processor {self.client_cpu:.0%}, late by {self.client_late_p99:.1f} ms (p99)",
            f"findings: {self.findings.changes:,} acknowledged changes, lost {len(self.findings.lost)},"
            f" twice {len(self.findings.twice)}, gaps {len(self.findings.gaps)}, wrong {len(self.findings.wrong)}",
            f"verify: {self.verified:,} sessions and audit chains, {len(self.problems)} problems {self.problems[:3]}",
        ]

    @property
    def _lag(self) -> float:
        return max((moment.lag for moment in self.moments), default=0.0)


async def load(fleet: Fleet, plan: Plan, token: Callable[[str], str]) -> Report:
    """Put a load on a fleet, and see what it comes to. ``token`` gives the token of a principal."""
    crowd = Crowd(fleet.doors, plan, token)
    try:
        await crowd.come()
        crowd.tally.answers.clear()
        crowd.tally.tries = 0
        watch = Watch(lambda: processes(fleet), fleet.doors, max(0.5, plan.seconds / 60))
        cpu = time.process_time()
        async with watch.watching(), killing(fleet, plan.kill_every) as kills:
            spent = await crowd.live()
            cpu = time.process_time() - cpu
        tally = crowd.tally
        answers, tries, failed = dict(sorted(tally.answers.items())), tally.tries, tally.failed
        findings = await crowd.check()
    finally:
        crowd.pool.close()
    requests = sum(map(len, tally.took.values()))
    late = sorted(tally.late)
    return Report(
        plan=plan,
        replicas=len(fleet.doors),
        offered=round(plan.offered, 1),
        rate=round(requests / spent, 1),
        requests=requests,
        tries=tries,
        failed=failed / max(tries, 1),
        given_up=crowd.given_up,
        refused=crowd.refused,
        stale=crowd.stale,
        kills=len(kills),
        verbs=tally.verbs(),
        answers=answers,
        used=list(watch.used.values()),
        client_cpu=round(cpu / spent, 3),
        client_late_p99=round(late[int(len(late) * 0.99)] * 1_000, 2) if late else 0.0,
        moments=watch.moments,
        findings=findings,
    )


@contextlib.asynccontextmanager
async def killing(fleet: Fleet, every: float | None) -> AsyncIterator[list[int]]:
    """Kill a replica every so many seconds, each in turn, and start another in its place; gives the list of those."""
    kills: list[int] = []

    async def go_on(seconds: float) -> None:
        due = time.monotonic()
        for which in itertools.cycle(range(len(fleet.doors))):
            due += seconds
            await asyncio.sleep(due - time.monotonic())
            kills.append(which)
            await fleet.kill(which)
            await asyncio.sleep(1)
            await fleet.start(which)

    task = None if every is None else asyncio.create_task(go_on(every), name="killing")
    try:
        yield kills
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def processes(fleet: Fleet) -> dict[str, list[int]]:
    """Whom to watch: the replicas and the servers they share."""
    found = {f"replica {which}": [fleet[which].process.pid] for which in fleet.up}
    if fleet.redis.process is not None:
        found["redis"] = [fleet.redis.process.pid]
    return {**found, "postgresql": fleet.postgres.processes}


__all__ = ["Report", "load"]
