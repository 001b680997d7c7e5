"""A strategy inline, in a worker and in a stand-alone client: from a quote to its orders, and how many quotes a second.

`order back` is from the quote's frame at the host until the strategy's order is back there; `orders out` until both
orders are signed, after risk, journal and gate. The reference is a bare ZeroMQ ping-pong of the same bytes between the
same two processes, measured in turn with it.

With `--faulty`, the tick to order of an inline instance while its neighbour misbehaves in one way after another, as a
ratio to that while it does not, measured in turn. Ticks come from another process, one every ms; `wire` is from when
that wrote it, so the wait for the loop, and for a free core, is in it. Floods are written past ZeroMQ, far more than a
million messages a second: what was offered, what a door took of it before it was shut, and the host's memory are told
as well.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.isolation_flood import KINDS
from bench.isolation_rig import IsolationRig, Member
from bench.isolation_ticks import GAP_S, STAMP
from bench.plugins.answering import FAULTS
from bench.tick_to_order import SYMBOL, quantile

ROUND: Final = 200
"""Reactions of one kind before the next kind's turn."""
CHUNK: Final = 50
"""Quotes handed over in one turn of the loop, as a socket does with what it has read."""
MOST_BEHIND: Final = 128
"""Quotes that a worker may have before it: all that flow control lets be on their way, and none waits in the host."""
Sample = dict[str, list[int]]
Tick = tuple[int, int]
"""From a tick in the host, and from where it was written, until its orders are signed, in ns."""


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
        self.most_bytes = 0
        """What the host has held at most since this was set to 0."""
        code = "from bench.isolation_ticks import main; main()"
        self._ticks = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def close(self) -> None:
        """End the ticks."""
        self._ticks.kill()
        self._ticks.wait()

    async def measure(self, reactions: int) -> list[Tick]:
        """Return how long after each tick the orders of the inline one were ready."""
        rig = self.rig
        taken: list[Tick] = []
        assert self._ticks.stdin is not None
        assert self._ticks.stdout is not None
        pipe, loop = self._ticks.stdout.fileno(), asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def on_stamps() -> None:
            stamps = os.read(pipe, STAMP * 1024)
            for at in range(0, len(stamps), STAMP):
                written_ns = int.from_bytes(stamps[at : at + STAMP], "little")
                frame = rig.next_frame(SYMBOL)
                begun_ns = time.perf_counter_ns()
                rig.adapter.on_frame(frame, SYMBOL)
                ready_ns = rig.adapter.sent_at_ns
                taken.append((ready_ns - begun_ns, ready_ns - written_ns))
                rig.acknowledge()
            if len(taken) % 8 == 0:
                self.most_bytes = max(self.most_bytes, held_bytes())
            if len(taken) >= reactions:
                loop.remove_reader(pipe)
                done.set_result(None)

        loop.add_reader(pipe, on_stamps)
        self._ticks.stdin.write(b"%d\n" % reactions)
        self._ticks.stdin.flush()
        await done
        return taken

    async def fail(self, kind: str, reactions: int) -> tuple[list[Tick], list[float]]:
        """Measure while a worker fails in one way, again and again; return also how soon each was found out, in ms."""
        taken: list[Tick] = []
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

    async def flood(self, kind: str, reactions: int) -> tuple[list[Tick], dict[str, float]]:
        """Measure while a program floods the door of a client; return also what it offered and what was taken."""
        door = self.rig.folder / "clients" / "flooded"
        code = "from bench.isolation_flood import main; main()"
        command = [sys.executable, "-c", code, str(door), kind]
        flooder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert flooder.stdin is not None
        assert flooder.stdout is not None
        flooder.stdin.write(door.with_name("flooded.token").read_bytes())
        flooder.stdin.close()
        await asyncio.to_thread(flooder.stdout.readline)  # it is ready
        before, self.most_bytes = held_bytes(), 0
        try:
            taken = await self.measure(reactions)
            flooder.terminate()
            said = json.loads(await asyncio.to_thread(flooder.stdout.readline))
        finally:
            flooder.kill()
            flooder.wait()
            self._let_in_again()
        return taken, {
            "offered_per_s": said["offered_per_s"],
            "taken_per_s": round(said["taken"] / said["open_s"]) if said["open_s"] else 0,
            "open_s": said["open_s"],
            "cut_off": said["doors"],
            "memory_mb": round(max(self.most_bytes - before, 0) / (1 << 20), 1),
        }

    def _let_in_again(self) -> None:
        """Begin with a clean record: enough cut-offs would have it in quarantine."""
        roster, instance = self.rig.engine.roster, self.flooded.instance
        self.rig.engine.begin_turn(self.rig.clock.now_ns())
        roster.put_in_quarantine(instance, "the bench begins anew")
        self.rig.engine.end_turn(self.rig.engine.now_ns, 0)
        roster.start(instance)


def held_bytes() -> int:
    """Return what this process holds, resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def neighbours(rig: IsolationRig, seconds: float, kinds: list[str]) -> dict[str, dict[str, float]]:
    """Measure these ways to misbehave, or all; each in turn with none."""
    floods = {f"flood of {kind}": kind for kind in KINDS}
    known = [*FAULTS, *floods]
    if unknown := set(kinds) - set(known):
        raise SystemExit(f"--faulty: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    faulty = await rig.add("faulty", "X1-USDT-PERP", "process", {"quotes": False})
    flooded = await rig.add("flooded", "X2-USDT-PERP", "client", {"quotes": False})
    rig.end_clients()  # who floods has the place to itself
    beside = Neighbours(rig, faulty, flooded)
    rows = {}
    names = [name for name in known if not kinds or name in kinds]
    reactions = max(int(seconds / len(names) / 4 / GAP_S), 100)
    try:
        for name in names:
            rows[name] = await _row(beside, name, floods.get(name, ""), reactions)
            print(f"{name}: {rows[name]}", file=sys.stderr)
    finally:
        beside.close()
    return rows


async def _row(beside: Neighbours, name: str, flood: str, reactions: int) -> dict[str, float]:
    quiet: list[Tick] = []
    disturbed: list[Tick] = []
    more: list[dict[str, float]] = []
    for _ in range(2):
        quiet += await beside.measure(reactions)
        if flood:
            taken, found = await beside.flood(flood, reactions)
        else:
            taken, found_ms = await beside.fail(name, reactions)
            found = {"found_ms": statistics.median(found_ms)}
        disturbed += taken
        more.append(found)
    (own, own_quiet), (wire, wire_quiet) = (
        [[tick[which] for tick in ticks] for ticks in (disturbed, quiet)] for which in (0, 1)
    )
    return {
        "p50_us": round(quantile(own, 0.5), 1),
        "p99_us": round(quantile(own, 0.99), 1),
        "quiet_p99_us": round(quantile(own_quiet, 0.99), 1),
        "ratio_p99": round(quantile(own, 0.99) / quantile(own_quiet, 0.99), 2),
        "wire_p99_us": round(quantile(wire, 0.99), 1),
        "wire_ratio_p99": round(quantile(wire, 0.99) / quantile(wire_quiet, 0.99), 2),
        **{key: round(statistics.mean(found[key] for found in more), 1) for key in more[0]},
    }


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


COMMON: Final = {
    "p99 µs": ("p99_us", 1.0),
    "ratio": ("ratio_p99", 1.0),
    "wire µs": ("wire_p99_us", 1.0),
    "wire ratio": ("wire_ratio_p99", 1.0),
}
"""Headings, and what is below them in which unit."""
FAILED: Final = {**COMMON, "found out after ms": ("found_ms", 1.0)}
FLOODED: Final = {
    **COMMON,
    "offered M/s": ("offered_per_s", 1e6),
    "taken k/s": ("taken_per_s", 1e3),
    "MiB": ("memory_mb", 1.0),
}


def _table_of(
    rows: dict[str, dict[str, float]], columns: dict[str, tuple[str, float]], *, is_flood: bool
) -> Table:
    what = "a door that is flooded" if is_flood else "a worker that fails"
    table = Table(title=f"tick to order of an inline instance beside {what}")
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        if name.startswith("flood of ") is is_flood:
            table.add_row(
                name.removeprefix("flood of "), *(f"{row[key] / unit:.4g}" for key, unit in columns.values())
            )
    return table


def show(found: dict[str, Any]) -> None:
    """Print tables for people."""
    console = Console()
    if "faulty" in found:
        for columns, is_flood in ((FAILED, False), (FLOODED, True)):
            table = _table_of(found["faulty"], columns, is_flood=is_flood)
            if table.row_count:
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
