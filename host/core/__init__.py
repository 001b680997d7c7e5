"""The trading core: deterministic, no I/O, time comes in as an argument."""
