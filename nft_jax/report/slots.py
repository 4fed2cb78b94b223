"""Which decode slot gave which answer when, found again from the lengths of a step's answers.

The schedule of `rollout/decode_loop.py` depends on lengths alone: at each trip of the loop the free slots take the next
answers of the queue, the slot with the lowest number first, and every busy slot draws one token. So nothing is recorded
while it decodes. With `rollout.partial` it also depends on what is in flight when the step begins; what is in flight
when it ends tells how much of the answers of later steps it drew.

The queue has the groups in the order of their draws. Without `rollout.partial` that is the order of the rounds.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nft_jax.rollout.rounds import may_end, slot_sizes
from nft_jax.run.json_files import NUMBER, read_json

# A page shows the newest steps, of up to so many answers together.
MOST_ANSWERS = 100_000


class Decoding(NamedTuple):
    """What the schedule of a step depends on beside lengths.

    Attributes:
      slots: Decode slots of a data shard.
      shards: Data shards.
      in_step: How many neighboring shards run the same number of trips; 1: each its own.
      begins_next: Whether slots that a round leaves free begin with the next round.
      max_rounds: Most rounds of a step.
      max_halvings: How many times a shard halves its slots at most.
      halving_steps: In how many steps each halving goes.
      rounds_ahead: With `rollout.partial`, how many rounds more than one the queue holds, and how old a group may get.
    """

    slots: int
    shards: int
    in_step: int
    begins_next: bool
    max_rounds: int
    max_halvings: int
    rounds_ahead: int = 0
    halving_steps: int = 1


@dataclass
class Shard:
    """What a data shard decoded in a step; answers are numbered as in the queue.

    Attributes:
      group_of: The round and the place in it of each group of the queue; (−1, −1) if it leaves in a later step.
      age_Q: The age of each group in steps.
      length_B: Tokens of each answer that the step drew.
      slot_B, start_B: Its slot, and the trip at which the first of these was drawn.
      free: A heap of slots: the lowest first.
      before_B: Tokens of each answer that earlier steps drew.
      goes_on: The answers that are unfinished when the step ends.
      busy: A heap of (trip after which it is free, slot, answer): the next to end first.
      following: The first answer that no slot has taken yet.
      round_starts: The trip at which each round began, and the end of the last.
      capacity: Tokens that could have been drawn with every slot busy.
    """

    group_of: np.ndarray
    age_Q: np.ndarray
    length_B: np.ndarray
    slot_B: np.ndarray
    start_B: np.ndarray
    free: list[int]
    before_B: np.ndarray
    goes_on: frozenset[int] = frozenset()
    busy: list[tuple[float, int, int]] = field(default_factory=list)
    following: int = 0
    trip: int = 0
    capacity: int = 0
    round_starts: list[int] = field(default_factory=list)

    def admit(self, queue_end: int) -> None:
        """Moves answers below `queue_end` into free slots."""
        while self.free and self.following < queue_end:
            slot, answer = heapq.heappop(self.free), self.following
            self.put(slot, answer)
            self.following += 1

    def put(self, slot: int, answer: int) -> None:
        """Puts an answer into a slot."""
        self.slot_B[answer], self.start_B[answer] = slot, self.trip
        end = math.inf if answer in self.goes_on else self.trip + int(self.length_B[answer])
        heapq.heappush(self.busy, (end, slot, answer))

    def go_to(self, trip: int, slots: int) -> None:
        """Decodes up to a trip, at which the answers that end are taken out."""
        self.capacity += (trip - self.trip) * slots
        self.trip = trip
        while self.busy and self.busy[0][0] <= trip:
            heapq.heappush(self.free, heapq.heappop(self.busy)[1])

    def is_unfinished(self, number: int, queue: int, decoding: Decoding) -> bool:
        """Returns whether round `number` goes on, given how many groups the queue has had so far."""
        each = len(self.length_B) // len(self.group_of)
        unfinished_Q = (np.arange(queue) + 1) * each > self.following
        unfinished_Q[[answer // each for _, _, answer in self.busy if answer < queue * each]] = True
        if not decoding.rounds_ahead:
            return bool(unfinished_Q.any())
        left_Q = (self.group_of[:queue, 0] >= 0) & (self.group_of[:queue, 0] < number)
        leaving = np.sum(~left_Q) // (1 + decoding.rounds_ahead)
        return not may_end(unfinished_Q[~left_Q], self.age_Q[:queue][~left_Q], leaving, decoding.rounds_ahead)


class Flight(NamedTuple):
    """What a data shard has in flight between two steps: a row of each array of `state.Flight`."""

    answer_S: np.ndarray
    length_B: np.ndarray
    age_B: np.ndarray
    draw_Q: np.ndarray
    next_answer: int


def trace_slots(
    length_RQK: np.ndarray,
    decoding: Decoding,
    draw_RQ: np.ndarray | None = None,
    before: Sequence[Flight] = (),
    after: Sequence[Flight] = (),
) -> list[Shard]:
    """Returns what each data shard decoded, given the lengths of the answers of all rounds of a step.

    Args:
      draw_RQ: With `rollout.partial`, the draws of the rounds' prompts.
      before, after: With `rollout.partial`, what each shard had in flight when the step began, and when it ended.
    """
    parts, shards = np.split(length_RQK, decoding.shards, axis=1), []
    for number, part_RQK in enumerate(parts):
        if draw_RQ is None:
            shards.append(_begin(part_RQK, decoding.slots))
        else:
            draws = np.split(draw_RQ, decoding.shards, axis=1)[number]
            shards.append(_resume(part_RQK, draws, before[number], after[number]))
    for first in range(0, len(shards), decoding.in_step):
        for number in range(len(length_RQK)):
            _run_round(shards[first : first + decoding.in_step], number, parts[0].shape, decoding)
    for shard in shards:
        shard.round_starts.append(shard.trip)
    return shards


def _begin(length_RQK: np.ndarray, slots: int) -> Shard:
    """Returns a shard at the beginning of a step, with free slots."""
    group_of, length_B = np.indices(length_RQK.shape[:2]).reshape(2, -1).T, length_RQK.reshape(-1)
    nothing_B = np.zeros_like(length_B)
    return Shard(group_of, nothing_B, length_B, nothing_B.copy(), nothing_B.copy(), list(range(slots)), nothing_B)


def _resume(length_RQK: np.ndarray, draw_RQ: np.ndarray, before: Flight, after: Flight) -> Shard:
    """Returns a shard at the beginning of a step, with the answers that are in its slots."""
    leave, stay, K = draw_RQ.size, len(after.draw_Q), length_RQK.shape[2]
    order = np.argsort(np.concatenate([draw_RQ.reshape(-1), after.draw_Q]))
    place = np.argsort(order)  # in the queue, of the groups that leave and then of those that stay
    group_of = np.concatenate([np.indices(draw_RQ.shape).reshape(2, -1).T, np.full((stay, 2), -1)])[order]
    length_QK = np.concatenate([length_RQK.reshape(leave, K), after.length_B.reshape(stay, K)])[order]
    # The groups that were there before have the lowest draws.
    there = len(before.draw_Q)
    before_QK, age_Q = np.zeros_like(length_QK), np.zeros(leave + stay, int)
    before_QK[:there] = before.length_B.reshape(there, K)
    age_Q[:there] = np.where(before.length_B > 0, before.age_B + 1, 0).reshape(there, K).max(axis=1)
    goes_on = frozenset(
        int(place[leave + answer // K] * K + answer % K) for answer in after.answer_S if answer < stay * K
    )
    free = [slot for slot, answer in enumerate(before.answer_S) if answer >= there * K]
    before_B, nothing_B = before_QK.reshape(-1), np.zeros_like(length_QK).reshape(-1)
    drawn_B = length_QK.reshape(-1) - before_B
    shard = Shard(group_of, age_Q, drawn_B, nothing_B, nothing_B.copy(), free, before_B, goes_on)
    shard.following = int(before.next_answer)
    for slot, answer in enumerate(before.answer_S):
        if answer < there * K:
            shard.put(slot, int(answer))
    return shard


def _run_round(together: Sequence[Shard], number: int, shape: tuple[int, ...], decoding: Decoding) -> None:
    """Runs the loop of a round on shards that go in step; `shape` is that of the lengths of one."""
    rounds, prompts, K = shape
    queue = round_end = (number + 1) * prompts
    begins_next = decoding.begins_next and number + 1 < decoding.max_rounds
    # What a step begins of a round that it does not need in the end is discarded, and its lengths are not known.
    queue += prompts * (begins_next and number + 1 < rounds)
    if decoding.rounds_ahead:
        begins_next, queue = True, round_end + prompts * decoding.rounds_ahead
        round_end = queue
    sizes = slot_sizes(decoding.slots, decoding.max_halvings, decoding.halving_steps)
    for shard in together:
        shard.round_starts.append(shard.trip)

    def can_halve() -> bool:
        drained = not begins_next and all(shard.following >= queue * K for shard in together)
        return drained and len(sizes) > 1 and all(len(shard.busy) <= sizes[1] for shard in together)

    while any(shard.is_unfinished(number, round_end, decoding) for shard in together):
        while can_halve():
            sizes = sizes[1:]
        for shard in together:
            shard.admit(queue * K)
        trips = int(min(shard.busy[0][0] - shard.trip for shard in together if shard.busy))
        # The loop looks before it takes answers from the queue: what these make possible it sees a trip later.
        trips = 1 if can_halve() else trips
        for shard in together:
            shard.go_to(shard.trip + trips, sizes[0])


def read_slots(workdir: Path, most: int = MOST_ANSWERS) -> list[dict]:
    """Reads the lengths that a run saved, newest steps first, and traces them, oldest first, for the page.

    A step whose loop had another capacity than the trace is left out: not its lengths alone decided its schedule.

    Returns:
      [{"step", "slots", "halvings" at most, "partial": whether answers outlive it, "prompts" of a round, "answers"
      to each, "shards": [{"rounds": starts, "groups", "lengths", "slots", "starts", "before", "goesOn"}]}]; "lengths"
      to "before" have a value for each answer of the queue, "groups" [round, prompt] for each group, −1 where it trains
      later, and "goesOn" the numbers of the answers that are unfinished when the step ends.

    Raises:
      ValueError: as `read_json` does.
    """
    return list(_read_newest(sorted((workdir / "rollouts").glob("slots_*.json")), most))[::-1]


def _read_newest(paths: Sequence[Path], most: int) -> Iterator[dict]:
    left = most
    for path in reversed(paths):
        saved = read_json(path, {"step": int, "lengths": list, "decoding": dict, "capacity": NUMBER})
        length_RQK = np.array(saved["lengths"], int)
        left -= length_RQK.size
        if left < 0 and left + length_RQK.size < most:
            return
        flights = (_read_flight(saved[name]) if name in saved else () for name in ("before", "after"))
        draw_RQ = np.array(saved["draws"], int) if "draws" in saved else None
        decoding = Decoding(**saved["decoding"])
        shards = trace_slots(length_RQK, decoding, draw_RQ, *flights)
        # The device sums it up in float32.
        if not math.isclose(sum(shard.capacity for shard in shards), saved["capacity"], rel_tol=1e-6):
            continue
        yield {
            "step": saved["step"],
            "slots": decoding.slots,
            "halvings": decoding.max_halvings,
            "partial": decoding.rounds_ahead > 0,
            "prompts": length_RQK.shape[1],
            "answers": length_RQK.shape[2],
            "shards": [
                {
                    "rounds": shard.round_starts,
                    "groups": shard.group_of.tolist(),
                    "lengths": shard.length_B.tolist(),
                    "slots": shard.slot_B.tolist(),
                    "starts": shard.start_B.tolist(),
                    "before": shard.before_B.tolist(),
                    "goesOn": sorted(shard.goes_on),
                }
                for shard in shards
            ],
        }


def _read_flight(saved: dict) -> list[Flight]:
    *arrays, next_X = (saved[name] for name in ("answer_XS", "length_XB", "age_XB", "draw_XQ", "next_X"))
    rows = zip(*(np.array(array, int) for array in arrays), next_X, strict=True)
    return [Flight(*row) for row in rows]
