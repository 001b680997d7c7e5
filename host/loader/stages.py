"""The stages that a plugin passes before it may run, and how each of them ended."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from host.loader.contract import check_signatures
from host.loader.offers import Offer
from host.loader.problem import PluginProblem
from host.loader.schema import check_construction, check_params, check_state

__all__ = ["OFFER_CHECKS", "Outcome", "Stage", "StageReport"]


class Stage(StrEnum):
    """In the order in which they run."""

    CAPTURE = "capture"
    COMPILE = "compile"
    IMPORT = "probe import"
    CLASSES = "classes"
    SIGNATURES = "signatures"
    PARAMS = "params schema"
    STATE = "state round trip"
    CONSTRUCT = "construct with defaults"


class Outcome(StrEnum):
    """How a stage ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """An earlier stage failed."""


class StageReport(Struct, frozen=True):
    """One stage's outcome: `text` says what was found, `problems` what is wrong."""

    stage: Stage
    outcome: Outcome
    duration_ms: float = 0.0
    text: str = ""
    problems: tuple[PluginProblem, ...] = ()


OFFER_CHECKS: Final[Mapping[Stage, Callable[[Offer], str]]] = {
    Stage.SIGNATURES: check_signatures,
    Stage.PARAMS: check_params,
    Stage.STATE: check_state,
    Stage.CONSTRUCT: check_construction,
}
"""What is asked of each offered class; each returns what it found or raises `PluginRejected`."""
