"""Client order ids: what the strictest venue takes, and read back without ambiguity."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.core.client_id import ClientId, ClientIdMaker, epoch_tag, parse_client_id

LEGAL = re.compile(r"[a-z0-9]{1,32}")
TOO_LONG = f"tdt{10**15:x}i{10**9:x}n{10**9:x}"
PREFIXES = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)


@given(prefix=PREFIXES, epoch=st.integers(0, 2**28 - 1), number=st.integers(0, 2**16 - 1))
def test_an_id_reads_back_as_what_it_was_made_of(prefix: str, epoch: int, number: int) -> None:
    maker = ClientIdMaker(prefix, epoch, number)
    first, second = maker.make(), maker.make()
    assert parse_client_id(first, prefix) == ClientId(prefix, epoch, number, 1)
    assert parse_client_id(second, prefix) == ClientId(prefix, epoch, number, 2)
    assert LEGAL.fullmatch(first)


@given(epoch=st.integers(0, 2**80), number=st.integers(0, 2**80), prefix=PREFIXES)
def test_ids_stay_legal_for_a_million_million_orders_or_no_maker_is_made(
    epoch: int, number: int, prefix: str
) -> None:
    try:
        maker = ClientIdMaker(prefix, epoch, number)
    except ValueError as error:
        assert str(epoch) in str(error)
        return
    maker._next = 16**10 - 1
    assert LEGAL.fullmatch(maker.make())


@given(mine=PREFIXES, others=PREFIXES)
def test_only_the_own_prefix_is_ours(mine: str, others: str) -> None:
    client_id = ClientIdMaker(others, 1, 1).make()
    assert (parse_client_id(client_id, mine) is not None) == (mine == others)


@given(
    prefix=PREFIXES, epoch=st.integers(0, 2**28), other=st.integers(0, 2**28), number=st.integers(0, 2**16)
)
def test_a_tag_is_what_the_ids_of_its_epoch_begin_with_and_no_others(
    prefix: str, epoch: int, other: int, number: int
) -> None:
    client_id = ClientIdMaker(prefix, epoch, number).make()
    assert client_id.startswith(epoch_tag(prefix, other)) == (epoch == other)


@given(st.text(alphabet="td0123456789abcdefin", max_size=40))
def test_what_is_parsed_is_exactly_what_would_have_been_made(text: str) -> None:
    parsed = parse_client_id(text, "td")
    if parsed is not None:
        assert text == f"tdt{parsed.epoch:x}i{parsed.instance_number:x}n{parsed.sequence:x}"
        assert len(text) <= 32


@pytest.mark.parametrize(
    "stranger",
    [
        "",
        "td",
        "web_4711",
        "tdt1i1n",
        "tdt1i1n1 ",
        "tdt1i1n1\n",
        "TDt1i1n1",
        "tdt01i1n1",
        "tdt1i1n-1",
        "x",
        f"tdt{10**15:x}i{10**9:x}n{10**9:x}",
    ],
)
def test_a_strangers_id_is_not_ours(stranger: str) -> None:
    assert parse_client_id(stranger, "td") is None


@pytest.mark.parametrize("prefix", ["", "TD", "td_", "toolong", "td\n", "ü"])
def test_a_bad_prefix_is_named(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"order id prefix must match .*, was"):
        ClientIdMaker(prefix, 1, 1)


@pytest.mark.parametrize(("epoch", "number"), [(-1, 1), (1, -1)])
def test_negative_parts_are_refused(epoch: int, number: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        ClientIdMaker("td", epoch, number)
