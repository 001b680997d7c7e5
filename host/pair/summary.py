"""What a run of a pair came to, for people and for programs."""

from typing import Any

from host.pair.pair import Pair
from host.pair.story import Story

__all__ = ["as_json", "outcome_rows", "switch_rows"]


def outcome_rows(pair: Pair) -> list[tuple[str, ...]]:
    """Return a row for each thing that was done: when, what, to whom, took ms, gap ms, what came of it."""
    return [_row(story) for story in pair.stories]


def _row(story: Story) -> tuple[str, ...]:
    end = story.ending
    at = f"{story.at_s:.1f}"
    if end is None:
        return at, str(story.deed), story.node, "-", "-", "it was not waited for"
    return at, str(story.deed), story.node, f"{end.took_ms:,.0f}", f"{end.gap_ms:,.0f}", end.text


def switch_rows(pair: Pair) -> list[tuple[str, ...]]:
    """Return a row for each change of leader, as the venue saw it."""
    return [
        (one.old_leader, one.new_leader, str(one.new_epoch), f"{one.gap_ms:,.1f}", str(one.adopted))
        for one in pair.judge.switches
    ]


def as_json(pair: Pair) -> dict[str, Any]:
    """Return everything as one object; times in ms unless the name says otherwise."""
    judge = pair.judge
    verdict = judge.verdict
    return {
        "good": pair.is_good,
        "folder": str(pair.plan.folder),
        "deeds": [_as_json(story) for story in pair.stories],
        "switches": [
            {
                "from": one.old_leader,
                "to": one.new_leader,
                "epoch": one.new_epoch,
                "gap_ms": round(one.gap_ms, 3),
                "adopted": one.adopted,
            }
            for one in judge.switches
        ],
        "accepted": judge.accepted,
        "fills": judge.fills,
        "refused": dict(judge.refused),
        "resting": len(judge.resting),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "stale": verdict.stale,
        "faults": verdict.faults,
    }


def _as_json(story: Story) -> dict[str, Any]:
    end = story.ending
    told: dict[str, Any] = {"at_s": round(story.at_s, 3), "deed": str(story.deed), "node": story.node}
    if end is not None:
        told |= {
            "good": end.is_good,
            "text": end.text,
            "took_ms": round(end.took_ms, 3),
            "gap_ms": round(end.gap_ms, 3),
            "adopted": end.adopted,
        }
    return told
