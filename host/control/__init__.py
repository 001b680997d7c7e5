"""The control API: who may call a node, from where, and what is kept of it."""
