"""All verbs of `tandem ctl`: each module adds those about one thing to the group."""

import os

# Whatever gRPC logs of a connection that fails, the verb's own message says in a few words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from host.cli.ctl import _create, _failover, _holdings, _instances, _limits, _node, _orders, _plugins, _stops

__all__ = [
    "_create",
    "_failover",
    "_holdings",
    "_instances",
    "_limits",
    "_node",
    "_orders",
    "_plugins",
    "_stops",
]
