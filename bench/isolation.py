"""A strategy inline, in a worker and in a stand-alone client: from a quote to its orders, and how many quotes a second.

`order back` is from the quote's frame at the host until the strategy's order is back there; `orders out` until both
orders are signed, after risk, journal and gate. The reference is a bare ZeroMQ ping-pong of the same bytes between the
same two processes, measured in turn with it.

With `--faulty`, the tick to order of an inline instance while its neighbour misbehaves in one way after another, as a
ratio to that while it does not, measured in turn.
"""

import argparse
import asyncio
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.isolation_flood import KINDS
from bench.isolation_rig import IsolationRig, Member
from bench.plugins.answering import FAULTS
from bench.tick_to_order import SYMBOL, quantile

ROUND: Final = 200
"""Reactions of one kind before the next kind's turn."""
CHUNK: Final = 50
"""Quotes handed over in one turn of the loop, as a socket does with what it has read."""
MOST_BEHIND: Final = 128
"""Quotes that a worker may have before it: all that flow control lets be on their way, and none waits in the host."""
GAP_S: Final = 0.001
Sample = dict[str, list[int]]


async def latencies(rig: IsolationRig, members: dict[str, Member], seconds: float) -> Sample:
    """Measure each kind in turn, for so long."""
    taken: Sample = {}

    def note(kind: str, *values: int) -> None:
        taken.setdefault(kind, []).extend(values)

    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for _ in range(ROUND):
            started_ns, ready_ns = await rig.react(SYMBOL)
            note("inline", ready_ns - started_ns)
        for kind, member in members.items():
            for _ in range(ROUND):
                started_ns, ready_ns = await rig.react(member.symbol)
                note(f"{kind}_out", ready_ns - started_ns)
                note(kind, member.back_ns - started_ns)
                await member.catches_up()
            note(f"{kind}_pingpong", *await rig.ping_pong(member, ROUND))
    return taken


async def throughput(rig: IsolationRig, members: list[Member], seconds: float) -> dict[str, Any]:
    """Hand quotes over as fast as three workers take them, and count what they got."""
    for member in members:
        member.listen()
    sent, started_s = 0, time.monotonic()
    while time.monotonic() - started_s < seconds:
        for _ in range(CHUNK):
            rig.adapter.on_frame(rig.next_frame(members[0].symbol), members[0].symbol)
        sent += CHUNK
        await asyncio.sleep(0)
        for member in members:
            await member.catches_up(MOST_BEHIND)
    for member in members:
        await rig.until(member.is_up)
    taken_s = time.monotonic() - started_s
    conflated = [_left_out(member) for member in members]
    for member in members:  # which says at the end what it has heard
        rig.engine.roster.stop(member.instance, "enough")
    await rig.until(lambda: not rig.workers.are_busy)
    return {
        "quotes_per_s": round(sent / taken_s),
        "msgs_per_s": round(sent * len(members) / taken_s),
        "lost": sum(sent - _heard(member) - left for member, left in zip(members, conflated, strict=True)),
        "conflated": sum(conflated),
    }


def _left_out(member: Member) -> int:
    outlet = member.session.outlet
    assert outlet is not None
    return outlet.conflated


def _heard(member: Member) -> int:
    saved = member.instance.saved_state
    return int(msgspec.msgpack.decode(saved)["events"]) if saved else 0


class Neighbours:
    """An inline instance and those beside it that misbehave."""

    def __init__(self, rig: IsolationRig, faulty: Member, flooded: Member) -> None:
        self.rig: Final = rig
        self.faulty: Final = faulty
        self.flooded: Final = flooded

    async def measure(self, reactions: int) -> list[int]:
        """Return the tick to order of the inline one, a tick every ms, in ns."""
        taken = []
        for _ in range(reactions):
            started_ns, ready_ns = await self.rig.react(SYMBOL)
            taken.append(ready_ns - started_ns)
            await asyncio.sleep(GAP_S)
        return taken

    async def fail(self, kind: str, reactions: int) -> tuple[list[int], list[float]]:
        """Measure while a worker fails in one way, again and again; return also how soon each was found out, in ms."""
        taken: list[int] = []
        found_ms: list[float] = []
        while len(taken) < reactions:
            await self.rig.until(self.faulty.is_up)
            session = self.faulty.session
            session.tell_params({"fault": kind, "quotes": False})
            self.rig.adapter.on_frame(self.rig.next_frame(self.faulty.symbol), self.faulty.symbol)
            started_s = time.monotonic()
            while self.faulty.proxy.session is session:
                taken += await self.measure(10)
            found_ms.append((time.monotonic() - started_s) * 1000)
            while not self.faulty.is_up():
                taken += await self.measure(10)
        return taken, found_ms

    async def flood(self, kind: str, reactions: int) -> tuple[list[int], list[float]]:
        """Measure while a program floods the door of a client."""
        folder = self.rig.folder / "clients"
        code = "from bench.isolation_flood import main; main()"
        command = [sys.executable, "-c", code, f"ipc://{folder}/flooded.turns.sock", kind]
        flooder = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert flooder.stdin is not None
        flooder.stdin.write((folder / "flooded.token").read_bytes())
        flooder.stdin.close()
        try:
            return await self.measure(reactions), []
        finally:
            flooder.kill()
            flooder.wait()
            self._let_in_again()

    def _let_in_again(self) -> None:
        """Begin with a clean record: enough cut-offs would have it in quarantine."""
        roster, instance = self.rig.engine.roster, self.flooded.instance
        self.rig.engine.begin_turn(self.rig.clock.now_ns())
        roster.put_in_quarantine(instance, "the bench begins anew")
        self.rig.engine.end_turn(self.rig.engine.now_ns, 0)
        roster.start(instance)


async def neighbours(rig: IsolationRig, seconds: float, kinds: list[str]) -> dict[str, dict[str, float]]:
    """Measure these ways to misbehave, or all; each in turn with none."""
    faulty = await rig.add("faulty", "X1-USDT-PERP", "process", {"quotes": False})
    flooded = await rig.add("flooded", "X2-USDT-PERP", "client", {"quotes": False})
    beside = Neighbours(rig, faulty, flooded)
    works: dict[str, Callable[[int], Any]] = {
        **{kind: functools.partial(beside.fail, kind) for kind in FAULTS},
        **{f"flood of {kind}": functools.partial(beside.flood, kind) for kind in KINDS},
    }
    if unknown := set(kinds) - set(works):
        raise SystemExit(f"--faulty: there is no {', '.join(sorted(unknown))}; there are {', '.join(works)}")
    works = {name: work for name, work in works.items() if not kinds or name in kinds}
    rows = {}
    reactions = max(int(seconds / len(works) / 4 / GAP_S), 100)
    for name, work in works.items():
        quiet: list[int] = []
        disturbed: list[int] = []
        found_ms: list[float] = []
        for _ in range(2):
            quiet += await beside.measure(reactions)
            taken, found = await work(reactions)
            disturbed += taken
            found_ms += found
        rows[name] = {
            "p50_us": round(quantile(disturbed, 0.5), 1),
            "p99_us": round(quantile(disturbed, 0.99), 1),
            "quiet_p99_us": round(quantile(quiet, 0.99), 1),
            "ratio_p99": round(quantile(disturbed, 0.99) / quantile(quiet, 0.99), 2),
            "found_ms": round(statistics.median(found_ms), 1) if found_ms else 0.0,
        }
        print(f"{name}: {rows[name]}", file=sys.stderr)
    return rows


def report(taken: Sample) -> dict[str, Any]:
    """Return the figures of `latencies`."""
    rows = {
        f"{kind}_us": {"p50": round(quantile(values, 0.5), 1), "p99": round(quantile(values, 0.99), 1)}
        for kind, values in taken.items()
    }
    found: dict[str, Any] = {**rows, "pingpong_us": rows["process_pingpong_us"]}
    for kind, key in (("process", ""), ("client", "client_")):
        own, bare = rows[f"{kind}_us"], rows[f"{kind}_pingpong_us"]
        found[f"{key}ratio_p50"] = round(own["p50"] / bare["p50"], 2)
        found[f"{key}p99_over_p50"] = round(own["p99"] / own["p50"], 2)
    return found


async def run(folder: Path, seconds: float, *, is_pinned: bool, faults: list[str] | None) -> dict[str, Any]:
    """Run everything on a node of its own; with `faults`, the neighbours of those, or of all where it is empty."""
    rig = IsolationRig(folder, 4)
    try:
        if faults is not None:
            return {"faulty": await neighbours(rig, seconds, faults)}
        members = {
            "process": await rig.add("process", "X1-USDT-PERP", "process"),
            "client": await rig.add("client", "X2-USDT-PERP", "client"),
        }
        if is_pinned:
            cores = sorted(os.sched_getaffinity(0))
            for child in rig.processes():
                os.sched_setaffinity(child, set(cores[1:]) or set(cores))
            os.sched_setaffinity(0, cores[:1])
        for member in members.values():
            member.listen()
            await rig.react(member.symbol)
            await member.catches_up()
        gc.collect()
        gc.freeze()
        found = report(await latencies(rig, members, seconds * 0.7))
        three = [
            await rig.add(f"counter-{n}", "X3-USDT-PERP", "process", {"quotes": False}) for n in range(3)
        ]
        return {**found, **await throughput(rig, three, seconds * 0.3)}
    finally:
        rig.close()


def show(found: dict[str, Any]) -> None:
    """Print tables for people."""
    console = Console()
    if "faulty" in found:
        table = Table(title="tick to order of an inline instance beside one that misbehaves")
        for column in (
            "neighbour",
            "p50 µs",
            "p99 µs",
            "undisturbed p99 µs",
            "ratio p99",
            "found out after ms",
        ):
            table.add_column(column, justify="left" if column == "neighbour" else "right")
        for name, row in found["faulty"].items():
            table.add_row(name, *(f"{value:g}" for value in row.values()))
        console.print(table)
        return
    table = Table(title="from a quote to its orders")
    for column in ("", "p50 µs", "p99 µs"):
        table.add_column(column, justify="right" if column else "left")
    names = {
        "inline": "inline, orders out",
        "process": "worker, order back",
        "process_out": "worker, orders out",
        "process_pingpong": "bare ping-pong with it",
        "client": "client, order back",
        "client_out": "client, orders out",
        "client_pingpong": "bare ping-pong with it",
    }
    for key, name in names.items():
        table.add_row(name, *(f"{value:g}" for value in found[f"{key}_us"].values()))
    console.print(table)
    for key in ("ratio_p50", "p99_over_p50", "client_ratio_p50", "client_p99_over_p50"):
        console.print(f"{key}: {found[key]:g}")
    console.print("three workers: {quotes_per_s} quotes/s to each, {msgs_per_s} messages/s".format(**found))
    console.print("of those {lost} lost, {conflated} conflated".format(**found))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pin", action="store_true", help="the host on the first core, all others off it")
    parser.add_argument(
        "--faulty",
        nargs="*",
        metavar="KIND",
        help="measure neighbours of what misbehaves: of each, or of these",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(run(Path(folder), args.seconds, is_pinned=args.pin, faults=args.faulty))
    if args.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
