"""The slots of a step, found again from lengths, are those of the decode loop.

tests/rollout/test_decode_loop.py compares the capacity of all shards, also in step and with slots that are halved.
"""

import json

import jax
import numpy as np

from helpers.engines import WEIGHTS, K, Q, rounds_of
from helpers.small_parts import one_device
from nft_jax.report.slots import Decoding, read_slots, trace_slots
from nft_jax.rollout.decode_loop import DecodeLoop


def test_slots_and_starts_are_those_of_the_loop_at_every_trip(monkeypatch):
    slots, seen, draw = 5, [], DecodeLoop._draw

    def note(loop, progress):
        jax.debug.callback(lambda answer_S: seen.append(np.array(answer_S)), progress.slots.answer_S, ordered=True)
        return draw(loop, progress)

    monkeypatch.setattr(DecodeLoop, "_draw", note)
    done = jax.device_get(rounds_of(one_device(), begins_next=True, slots=slots)(WEIGHTS))
    jax.effects_barrier()
    length_RQK = np.stack([each.rollout.length_B.reshape(Q, K) for each in done])
    (shard,) = trace_slots(length_RQK, Decoding(slots, 1, 1, True, len(done), 0))
    assert shard.trip == len(seen)
    expected = np.full((shard.trip, slots), -1)
    for answer, (length, slot, start) in enumerate(zip(shard.length_B, shard.slot_B, shard.start_B, strict=True)):
        assert (expected[start : start + length, slot] == -1).all()
        expected[start : start + length, slot] = answer
    # The loop numbers answers from the current round on; a free slot has the number of all that it may take.
    place = np.searchsorted(shard.round_starts[1:], np.arange(shard.trip), side="right")
    found = np.array(seen) + place[:, None] * Q * K
    free = np.array(seen) == 2 * Q * K
    np.testing.assert_array_equal(np.where(free, -1, found), expected)


def test_read_slots_takes_the_newest_steps_that_fit(tmp_path):
    decoding = Decoding(2, 2, 1, True, 4, 0)._asdict()
    for step in (1, 5, 10):
        saved = {"step": step, "decoding": decoding, "capacity": 14.0, "lengths": [[[3, 1, 2], [2, 2, 2]]]}
        (tmp_path / "rollouts").mkdir(exist_ok=True)
        (tmp_path / "rollouts" / f"slots_{step:06d}.json").write_text(json.dumps(saved))
    assert [row["step"] for row in read_slots(tmp_path)] == [1, 5, 10]
    assert [row["step"] for row in read_slots(tmp_path, most=12)] == [5, 10]
    assert [row["step"] for row in read_slots(tmp_path, most=1)] == [10]
    first, second = read_slots(tmp_path)[0]["shards"]
    assert not read_slots(tmp_path)[0]["partial"]
    nothing = {"groups": [[0, 0]], "before": [0, 0, 0], "goesOn": []}
    assert first == {"rounds": [0, 3], "lengths": [3, 1, 2], "slots": [0, 1, 1], "starts": [0, 0, 1]} | nothing
    assert second == {"rounds": [0, 4], "lengths": [2, 2, 2], "slots": [0, 1, 0], "starts": [0, 0, 2]} | nothing
    # A loop that did something else.
    path = tmp_path / "rollouts" / "slots_000005.json"
    path.write_text(path.read_text().replace("14.0", "16.0"))
    assert [row["step"] for row in read_slots(tmp_path)] == [1, 10]


def test_read_slots_goes_on_with_what_is_in_flight(tmp_path):
    decoding = Decoding(2, 1, 1, True, 4, 0, 1)._asdict()
    nothing = {"age_XB": [[0] * 6], "draw_XQ": [[4, 5]]}
    # Of the first group's three answers the first has ended before, and the second has one token in slot 1.
    before = {"answer_XS": [[6, 1]], "length_XB": [[2, 1, 0, 0, 0, 0]], "next_X": [2]} | nothing
    # Then slot 1 takes the first of the next group, which is unfinished when slot 0 ends the third.
    after = {"answer_XS": [[6, 0]], "length_XB": [[2, 0, 0, 0, 0, 0]], "next_X": [1]} | nothing | {"draw_XQ": [[5, 6]]}
    saved = {
        "step": 1,
        "decoding": decoding,
        "capacity": 8.0,
        "lengths": [[[2, 3, 4]]],
        "draws": [[4]],
        "before": before,
        "after": after,
    }
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "slots_000001.json").write_text(json.dumps(saved))
    (row,) = read_slots(tmp_path)
    assert row["shards"] == [
        {
            "rounds": [0, 4],
            "groups": [[0, 0], [-1, -1], [-1, -1]],
            "lengths": [0, 2, 4, 2, 0, 0, 0, 0, 0],
            "slots": [0, 1, 0, 1, 0, 0, 0, 0, 0],
            "starts": [0, 0, 0, 2, 0, 0, 0, 0, 0],
            "before": [2, 1, 0, 0, 0, 0, 0, 0, 0],
            "goesOn": [3],
        }
    ]


def test_read_slots_takes_groups_in_the_order_in_which_they_end(tmp_path):
    """The answers of draws 0 and 1 go on, while that of draw 2 trains."""
    decoding = Decoding(3, 1, 1, True, 1, 0, 2)._asdict()
    free = {"answer_XS": [[3, 3, 3]], "length_XB": [[0, 0, 0]], "age_XB": [[0, 0, 0]]}
    before = free | {"draw_XQ": [[0, 1, 2]], "next_X": [0]}
    after = free | {"answer_XS": [[0, 1, 3]], "length_XB": [[2, 2, 0]], "draw_XQ": [[0, 1, 3]], "next_X": [2]}
    saved = {"step": 1, "decoding": decoding, "capacity": 6.0, "lengths": [[[2]]], "draws": [[2]]}
    (tmp_path / "rollouts").mkdir()
    path = tmp_path / "rollouts" / "slots_000001.json"
    path.write_text(json.dumps(saved | {"before": before, "after": after}))
    (row,) = read_slots(tmp_path)
    (shard,) = row["shards"]
    assert row["partial"]
    assert shard["groups"] == [[-1, -1], [-1, -1], [0, 0], [-1, -1]]
    assert (shard["lengths"], shard["goesOn"], shard["rounds"]) == ([2, 2, 2, 0], [0, 1], [0, 2])
