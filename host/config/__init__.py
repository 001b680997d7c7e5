"""The configuration of a node: one TOML file, overlaid per environment and by variables, strict."""

from host.config.schema import (
    AccountSection,
    InstanceSection,
    ModelRef,
    NodeConfig,
    NodeSection,
    RiskSection,
    RunOptions,
    StoreSection,
    bundled_plugins,
)

__all__ = [
    "AccountSection",
    "InstanceSection",
    "ModelRef",
    "NodeConfig",
    "NodeSection",
    "RiskSection",
    "RunOptions",
    "StoreSection",
    "bundled_plugins",
]
