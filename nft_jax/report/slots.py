"""Which decode slot gave which answer when, found again from the lengths of a step's answers.

The schedule of `rollout/decode_loop.py` depends on lengths alone: at each trip of the loop the free slots take the next
answers of the queue, the slot with the lowest number first, and every busy slot draws one token. So nothing is recorded
while it decodes. With `rollout.partial` it also depends on what is in flight when the step begins; what is in flight
when it ends tells how much of the answers of later steps it drew.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
      rounds_ahead: With `rollout.partial`, how many rounds after the current one slots may begin with.
    """

    slots: int
    shards: int
    in_step: int
    begins_next: bool
    max_rounds: int
    max_halvings: int
    rounds_ahead: int = 0


@dataclass
class Shard:
    """What a data shard decoded in a step; answers are numbered over all its rounds, those of later steps last.

    Attributes:
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

    def is_unfinished(self, round_end: int) -> bool:
        """Returns whether an answer below `round_end` waits or is in a slot."""
        return self.following < round_end or any(answer < round_end for _, _, answer in self.busy)


class Flight(NamedTuple):
    """What a data shard has in flight between two steps: a row of each array of `state.Flight`."""

    answer_S: np.ndarray
    length_B: np.ndarray
    next_answer: int


def trace_slots(
    length_RQK: np.ndarray, decoding: Decoding, before: Sequence[Flight] = (), after: Sequence[Flight] = ()
) -> list[Shard]:
    """Returns what each data shard decoded, given the lengths of the answers of all rounds of a step.

    Args:
      before, after: With `rollout.partial`, what each shard had in flight when the step began, and when it ended.
    """
    rounds, shards = len(length_RQK), []
    parts = [part_RQK.reshape(rounds, -1) for part_RQK in np.split(length_RQK, decoding.shards, axis=1)]
    for number, length_RB in enumerate(parts):
        if before:
            shards.append(_resume(length_RB, before[number], after[number], decoding))
        else:
            length_B = length_RB.reshape(-1)
            free = list(range(decoding.slots))
            shards.append(Shard(length_B, np.zeros_like(length_B), np.zeros_like(length_B), free, length_B * 0))
    for first in range(0, len(shards), decoding.in_step):
        for number in range(rounds):
            _run_round(shards[first : first + decoding.in_step], number, rounds, parts[0].shape[1], decoding)
    for shard in shards:
        shard.round_starts.append(shard.trip)
    return shards


def _resume(length_RB: np.ndarray, before: Flight, after: Flight, decoding: Decoding) -> Shard:
    """Returns a shard at the beginning of a step, with the answers that are in its slots."""
    rounds, answers = length_RB.shape
    ahead = decoding.rounds_ahead * answers
    whole_B = np.concatenate([length_RB.reshape(-1), after.length_B[:ahead]])
    before_B = np.zeros_like(whole_B)
    before_B[: len(before.length_B)] = before.length_B
    places = len(before.length_B)  # a free slot has this number in place of an answer's
    goes_on = frozenset(int(answer) + rounds * answers for answer in after.answer_S if answer < places)
    free = [slot for slot, answer in enumerate(before.answer_S) if answer >= places]
    nothing_B = np.zeros_like(whole_B)
    shard = Shard(whole_B - before_B, nothing_B, nothing_B.copy(), free, before_B, goes_on)
    shard.following = int(before.next_answer)
    for slot, answer in enumerate(before.answer_S):
        if answer < places:
            shard.put(slot, int(answer))
    return shard


def _run_round(together: Sequence[Shard], number: int, rounds: int, answers: int, decoding: Decoding) -> None:
    """Runs the loop of a round of so many `answers` a shard, on shards that go in step."""
    round_end = (number + 1) * answers
    begins_next = decoding.begins_next and number + 1 < decoding.max_rounds
    # What a step begins of a round that it does not need in the end is discarded, and its lengths are not known.
    queue_end = round_end + answers * (begins_next and number + 1 < rounds)
    if decoding.rounds_ahead:
        begins_next, queue_end = True, round_end + answers * decoding.rounds_ahead
    sizes = [size for halvings in range(decoding.max_halvings + 1) if (size := decoding.slots >> halvings)]
    for shard in together:
        shard.round_starts.append(shard.trip)

    def can_halve() -> bool:
        drained = not begins_next and all(shard.following >= queue_end for shard in together)
        return drained and len(sizes) > 1 and all(len(shard.busy) <= sizes[1] for shard in together)

    while any(shard.is_unfinished(round_end) for shard in together):
        while can_halve():
            sizes = sizes[1:]
        for shard in together:
            shard.admit(queue_end)
        trips = int(min(shard.busy[0][0] - shard.trip for shard in together if shard.busy))
        # The loop looks before it takes answers from the queue: what these make possible it sees a trip later.
        trips = 1 if can_halve() else trips
        for shard in together:
            shard.go_to(shard.trip + trips, sizes[0])


def read_slots(workdir: Path, most: int = MOST_ANSWERS) -> list[dict]:
    """Reads the lengths that a run saved, newest steps first, and traces them, oldest first, for the page.

    A step whose loop had another capacity than the trace is left out: not its lengths alone decided its schedule.

    Returns:
      [{"step", "slots", "prompts" of a round, "answers" to each, "shards": [{"rounds": starts, "lengths", "slots",
      "starts", "before", "goesOn"}]}]; "lengths" to "before" have a value for each answer of the shard, round after
      round, and "goesOn" the numbers of those that are unfinished when the step ends.

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
        shards = trace_slots(length_RQK, Decoding(**saved["decoding"]), *flights)
        # The device sums it up in float32.
        if not math.isclose(sum(shard.capacity for shard in shards), saved["capacity"], rel_tol=1e-6):
            continue
        yield {
            "step": saved["step"],
            "slots": saved["decoding"]["slots"],
            "halvings": saved["decoding"]["max_halvings"],
            "prompts": length_RQK.shape[1],
            "answers": length_RQK.shape[2],
            "shards": [
                {
                    "rounds": shard.round_starts,
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
    rows = zip(saved["answer_XS"], saved["length_XB"], saved["next_X"], strict=True)
    return [
        Flight(np.array(answer_S, int), np.array(length_B, int), next_answer)
        for answer_S, length_B, next_answer in rows
    ]
