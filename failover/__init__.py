"""Failover: who may trade, proved by a lease. Knows `host.journal` and `host.core` at most."""
