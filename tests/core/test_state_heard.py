"""What a saved strategy state has taken in of the instance's news."""

from hypothesis import given
from hypothesis import strategies as st

from host.core import entries as e
from host.core.state import InstanceRecord, News, TradingState


def state(news: int) -> TradingState:
    state = TradingState()
    state.instances["q"] = InstanceRecord("q", 1, "p", "d", "acc", ("BTC-USDT",), b"{}")
    state.unheard["q"] = [News(f"id{number}") for number in range(news)]
    return state


@given(news=st.integers(0, 20), heard=st.integers(0, 25))
def test_so_many_of_the_oldest_are_heard(news: int, heard: int) -> None:
    one = state(news)
    one.apply(1, 1, e.StrategyStateSaved("q", 1, b"x", heard))
    left = [item.client_id for item in one.unheard.get("q", ())]
    assert left == [f"id{number}" for number in range(heard, news)]
    assert one.instances["q"].strategy_state == b"x"


def test_without_a_count_all_are_heard() -> None:
    one = state(3)
    one.apply(1, 1, e.StrategyStateSaved("q", 1, b"x"))
    assert one.unheard == {}
