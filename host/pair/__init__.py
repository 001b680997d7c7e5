"""`tandem pair`: a venue, a lease store and the nodes of one cell on this machine, to break and to watch.

It drives processes and their control API from outside, as an operator would, and shares no code with what
runs inside a node. What it says of lost, doubled and stale orders is read from the venue's log and the
nodes' journals.
"""
