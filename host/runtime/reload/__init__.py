"""Changing the code of plugins while their orders are live."""

from host.runtime.reload.adapters import AdapterUse
from host.runtime.reload.models import ModelUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.reloader import Reloader
from host.runtime.reload.restart import Choice, choose_version
from host.runtime.reload.settings import ReloadSettings
from host.runtime.reload.stages import ReloadReport, Stage, StageOutcome, StageResult
from host.runtime.reload.uses import StrategyUse, Uses

__all__ = [
    "AdapterUse",
    "Choice",
    "ModelUse",
    "ProbationLimits",
    "ReloadReport",
    "ReloadSettings",
    "Reloader",
    "Stage",
    "StageOutcome",
    "StageResult",
    "StrategyUse",
    "Uses",
    "choose_version",
]
