"""`tandem ctl`: the client for people."""

from host.cli.ctl._group import ctl

__all__ = ["ctl"]
