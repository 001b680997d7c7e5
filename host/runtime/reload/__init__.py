"""Changing the code of plugins while their orders are live."""

from host.runtime.reload.reloader import Reloader, ReloadReport, ReloadSettings
from host.runtime.reload.stages import Stage, StageOutcome, StageResult

__all__ = ["ReloadReport", "ReloadSettings", "Reloader", "Stage", "StageOutcome", "StageResult"]
