"""The configuration of a node: one TOML file, overlaid per environment and by variables, strict."""

from host.config.check import find_instance_mistakes
from host.config.client import ClientSection
from host.config.failover import FailoverSection, FailoverTlsSection
from host.config.load import (
    ConfigError,
    ConfigSource,
    LoadedConfig,
    default_config,
    load_config,
    load_whereabouts,
    replay_config,
)
from host.config.plan import RESTART_REQUIRED, ConfigPlan, diff
from host.config.schedule import ScheduleSection
from host.config.schema import (
    AccountSection,
    ControlSection,
    ControlTlsSection,
    InstanceSection,
    ModelRef,
    NodeConfig,
    NodeSection,
    RiskSection,
    RunOptions,
    SecretsSection,
    StoreSection,
    WatchdogSection,
    bundled_plugins,
)
from host.config.sources import Problem

__all__ = [
    "RESTART_REQUIRED",
    "AccountSection",
    "ClientSection",
    "ConfigError",
    "ConfigPlan",
    "ConfigSource",
    "ControlSection",
    "ControlTlsSection",
    "FailoverSection",
    "FailoverTlsSection",
    "InstanceSection",
    "LoadedConfig",
    "ModelRef",
    "NodeConfig",
    "NodeSection",
    "Problem",
    "RiskSection",
    "RunOptions",
    "ScheduleSection",
    "SecretsSection",
    "StoreSection",
    "WatchdogSection",
    "bundled_plugins",
    "default_config",
    "diff",
    "find_instance_mistakes",
    "load_config",
    "load_whereabouts",
    "replay_config",
]
