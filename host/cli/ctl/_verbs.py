"""All verbs of `tandem ctl`: each module adds those about one thing to the group."""

from host.cli.ctl import _holdings, _instances, _limits, _node, _orders, _plugins, _stops

__all__ = ["_holdings", "_instances", "_limits", "_node", "_orders", "_plugins", "_stops"]
