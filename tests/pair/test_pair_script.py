"""Scripts of faults: what they say, and what is wrong with those that say nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.pair.faults import Act, Deed, LinkKind, Planned, ScriptInvalid, Since, parse_script

NAMES = ("a", "b")


def test_a_script_is_read_into_deeds_by_time() -> None:
    script = parse_script(
        "freeze b@8s, kill a@3s,cut leader store @ 1.5s, switchover@9s, switchover b@10s", NAMES
    )
    assert script == [
        Planned(Deed(Act.CUT, "leader", LinkKind.STORE), 1.5),
        Planned(Deed(Act.KILL, "a"), 3.0),
        Planned(Deed(Act.FREEZE, "b"), 8.0),
        Planned(Deed(Act.SWITCHOVER), 9.0),
        Planned(Deed(Act.SWITCHOVER, "b"), 10.0),
    ]


def test_steps_that_wait_for_each_other_stay_in_their_order() -> None:
    script = parse_script("kill leader@3s, freeze leader@ready+1500ms, thaw b@+1s, switchover@ready", NAMES)
    assert script == [
        Planned(Deed(Act.KILL, "leader"), 3.0),
        Planned(Deed(Act.FREEZE, "leader"), 1.5, Since.READY),
        Planned(Deed(Act.THAW, "b"), 1.0, Since.ENDED),
        Planned(Deed(Act.SWITCHOVER), 0.0, Since.READY),
    ]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", "at least one step"),
        ("kill a", "ACT NODE@TIME"),
        ("maim a@3s", "one of kill, lose"),
        ("kill a@soon", "a time such as 3s"),
        ("kill a@", "a time such as 3s"),
        ("kill a@+", "a time such as 3s"),
        ("kill a@ready+", "a time such as 3s"),
        ("kill a@ready3s", "a time such as 3s"),
        ("kill@3s", "a node"),
        ("kill c@3s", "a node (a, b, leader or standby)"),
        ("cut a@3s", "one of store, peers, venue"),
        ("cut a moon@3s", "one of store, peers, venue"),
        ("kill a store@3s", "nothing between a and @"),
    ],
)
def test_a_step_that_cannot_be_read_is_named_with_what_was_expected(script: str, expected: str) -> None:
    with pytest.raises(ScriptInvalid) as refused:
        parse_script(script, NAMES)
    assert expected in str(refused.value)
    assert f'was "{script}"' in str(refused.value)


deeds = st.one_of(
    st.builds(
        Deed,
        st.sampled_from([act for act in Act if act not in (Act.CUT, Act.REFUSE)]),
        st.sampled_from([*NAMES, "leader", "standby"]),
    ),
    st.builds(
        Deed,
        st.sampled_from([Act.CUT, Act.REFUSE]),
        st.sampled_from([*NAMES, "leader", "standby"]),
        st.sampled_from(list(LinkKind)),
    ),
)


@given(st.lists(st.tuples(deeds, st.integers(0, 100_000)), min_size=1, max_size=8))
def test_what_a_deed_says_of_itself_is_read_as_that_deed(steps: list[tuple[Deed, int]]) -> None:
    text = ", ".join(f"{deed}@{at_ms}ms" for deed, at_ms in steps)
    wanted = sorted((Planned(deed, at_ms / 1000) for deed, at_ms in steps), key=lambda one: one.at_s)
    assert parse_script(text, NAMES) == wanted
