import pytest


@pytest.fixture(autouse=True)
def _any_store_is_quick_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no store: all nodes of a test share one loop, and what holds that up is no reason to refuse a ttl."""
    monkeypatch.setattr("failover.lease.opening.ROUND_TRIPS_PER_TTL", 0)
