"""The control API: who may call a node, from where, and what is kept of it."""

import os

# gRPC's handlers for fork() are for programs that go on using gRPC in the child. This one forks to
# run other programs only, and they would hold up the loop and write to its log each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
