"""The child process of `probe`: reads a version on stdin, writes what it compiles to, then its stages.

Each answer is one line of JSON.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from host.loader.capture import Version
from host.loader.importer import import_version, problem_of
from host.loader.memory import lift_limit, limit_memory
from host.loader.offers import Offer, collect_offers, new_manager
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.source import CompiledVersion
from host.loader.stages import OFFER_CHECKS, Outcome, Stage, StageReport

_WORKS_IN = Path("/proc/self/cwd")  # and not `Path.cwd`, which a folder that was deleted has none of


def main() -> None:
    """Probe the version on stdin, then end this process at once."""
    probe_stdin(float(sys.argv[1]))
    os._exit(0)  # exit handlers and threads of the plugin are not waited for; the parent ends its processes


def probe_stdin(deadline_s: float) -> None:
    """Run the stages until one fails; the process ends where they take longer than `deadline_s`."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the plugin prints must not mix with the answers
    with open(0, "rb", closefd=False) as stdin:
        request = stdin.read()
    version = msgspec.msgpack.decode(request, type=Version, dec_hook=lambda _type, value: Path(value))
    limit_memory()
    faulthandler.enable()
    # From C, so that it also ends a plugin that never gives up the interpreter lock.
    faulthandler.dump_traceback_later(deadline_s, exit=True)
    run_stages(version, answers)


def run_stages(version: Version, answers: IO[bytes]) -> None:
    """Write what the version compiles to and a report per stage; stop after the first that fails."""
    offers: list[Offer] = []
    forks: list[int] = []
    process_id, folder = os.getpid(), _WORKS_IN.readlink()
    os.register_at_fork(before=lambda: forks.append(os.getpid()))

    def import_it() -> str:
        compiled = CompiledVersion.of(version)
        answers.write(msgspec.json.encode(compiled) + b"\n")  # before the plugin's code can write anything
        module = import_version(version, compiled)
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if others:
            next_step = "start nothing at import: a version that is only looked at would leave it behind"
            raise PluginRejected(
                [version.problem(f'starts thread "{others[0]}" at import', next_step=next_step)]
            )
        return module.__name__

    def find_classes() -> str:
        module = sys.modules[version.package]
        offers.extend(collect_offers(new_manager(), module, version))
        return ", ".join(f'{offer.kind} "{offer.name}"' for offer in offers)

    def each_offer(check: Callable[[Offer], str]) -> str:
        texts, problems = [], list[PluginProblem]()
        for offer in offers:
            try:
                texts.append(check(offer))
            except PluginRejected as rejected:
                problems.extend(rejected.problems)
        if problems:
            raise PluginRejected(problems)
        return "; ".join(texts)

    def left_nothing(step: Callable[[], str]) -> str:
        try:
            text = step()
        finally:
            if os.getpid() != process_id:
                os._exit(0)  # a copy that the plugin forked: one answers
        problem = None
        if forks:
            next_step = (
                "a copy of a node keeps its journal and its connections open; take subprocess, from on_start"
            )
            problem = version.problem("forks the process that runs it", next_step=next_step)
        elif _WORKS_IN.readlink() != folder:
            next_step = "the files of a node are found from its working directory"
            problem = version.problem("changes the working directory", next_step=next_step)
        elif signal.getitimer(signal.ITIMER_REAL)[0]:
            next_step = "SIGALRM ends a node; take set_timer, from on_start"
            problem = version.problem("sets an alarm for the process that runs it", next_step=next_step)
        elif sys.stdout is None or sys.stdout.closed or sys.stderr is None or sys.stderr.closed:
            next_step = "what a node has to say goes there"
            problem = version.problem("closes the output of the process that runs it", next_step=next_step)
        if problem is not None:
            raise PluginRejected([problem])
        return text

    steps: list[tuple[Stage, Callable[[], str]]] = [(Stage.IMPORT, import_it), (Stage.CLASSES, find_classes)]
    for stage, check in OFFER_CHECKS.items():
        steps.append((stage, lambda check=check: each_offer(check)))  # type: ignore[misc]
    for stage, step in steps:
        report = run_stage(version, stage, lambda step=step: left_nothing(step))  # type: ignore[misc]
        answers.write(msgspec.json.encode(report, enc_hook=str) + b"\n")
        if report.outcome is Outcome.FAILED:
            return


def run_stage(version: Version, stage: Stage, step: Callable[[], str]) -> StageReport:
    """Run one step and time it; what it raises becomes problems."""
    started = time.perf_counter()
    text, problems = "", tuple[PluginProblem, ...]()
    try:
        text = step()
    except PluginRejected as rejected:
        problems = rejected.problems
    except MemoryError as error:
        lift_limit()
        first: BaseException = error  # what handled it ran out of memory, too
        while first.__context__ is not None:
            first = first.__context__
        problems = (problem_of(version, first, f"in {stage}"),)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary
        problems = (problem_of(version, error, f"in {stage}"),)
    outcome = Outcome.FAILED if problems else Outcome.PASSED
    return StageReport(stage, outcome, (time.perf_counter() - started) * 1e3, text, problems)


if __name__ == "__main__":
    main()
