"""Which decode slot gave which answer when, found again from the lengths of a step's answers.

The schedule of `rollout/decode_loop.py` depends on lengths alone: at each trip of the loop the free slots take the next
answers of the queue, the slot with the lowest number first, and every busy slot draws one token. So nothing is recorded
while it decodes.
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
    """

    slots: int
    shards: int
    in_step: int
    begins_next: bool
    max_rounds: int
    max_halvings: int


@dataclass
class Shard:
    """What a data shard decoded in a step; answers are numbered over all its rounds.

    Attributes:
      length_B: Tokens of each answer.
      slot_B, start_B: Its slot, and the trip at which its first token was drawn.
      free: A heap of slots: the lowest first.
      busy: A heap of (trip after which it is free, slot, answer): the next to end first.
      round_starts: The trip at which each round began, and the end of the last.
      capacity: Tokens that could have been drawn with every slot busy.
    """

    length_B: np.ndarray
    slot_B: np.ndarray
    start_B: np.ndarray
    free: list[int]
    busy: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # a heap: (trip after which it is free, slot, answer)
    following: int = 0
    trip: int = 0
    capacity: int = 0
    round_starts: list[int] = field(default_factory=list)

    def admit(self, queue_end: int) -> None:
        """Moves answers below `queue_end` into free slots."""
        while self.free and self.following < queue_end:
            slot, answer = heapq.heappop(self.free), self.following
            self.slot_B[answer], self.start_B[answer] = slot, self.trip
            heapq.heappush(self.busy, (self.trip + int(self.length_B[answer]), slot, answer))
            self.following += 1

    def go_to(self, trip: int, slots: int) -> None:
        """Decodes up to a trip, at which the answers that end are taken out."""
        self.capacity += (trip - self.trip) * slots
        self.trip = trip
        while self.busy and self.busy[0][0] <= trip:
            heapq.heappush(self.free, heapq.heappop(self.busy)[1])

    def is_unfinished(self, round_end: int) -> bool:
        """Returns whether an answer below `round_end` waits or is in a slot."""
        return self.following < round_end or any(answer < round_end for _, _, answer in self.busy)


def trace_slots(length_RQK: np.ndarray, decoding: Decoding) -> list[Shard]:
    """Returns what each data shard decoded, given the lengths of the answers of all rounds of a step."""
    rounds, shards = len(length_RQK), []
    for part_RQK in np.split(length_RQK, decoding.shards, axis=1):
        length_B = part_RQK.reshape(-1)
        shards.append(Shard(length_B, np.zeros_like(length_B), np.zeros_like(length_B), list(range(decoding.slots))))
    for first in range(0, len(shards), decoding.in_step):
        for number in range(rounds):
            _run_round(shards[first : first + decoding.in_step], number, rounds, decoding)
    for shard in shards:
        shard.round_starts.append(shard.trip)
    return shards


def _run_round(together: Sequence[Shard], number: int, rounds: int, decoding: Decoding) -> None:
    """Runs the loop of a round on shards that go in step."""
    answers = len(together[0].length_B) // rounds
    round_end = (number + 1) * answers
    begins_next = decoding.begins_next and number + 1 < decoding.max_rounds
    # What a step begins of a round that it does not need in the end is discarded, and its lengths are not known.
    queue_end = round_end + answers * (begins_next and number + 1 < rounds)
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
        trips = min(shard.busy[0][0] - shard.trip for shard in together if shard.busy)
        # The loop looks before it takes answers from the queue: what these make possible it sees a trip later.
        trips = 1 if can_halve() else trips
        for shard in together:
            shard.go_to(shard.trip + trips, sizes[0])


def read_slots(workdir: Path, most: int = MOST_ANSWERS) -> list[dict]:
    """Reads the lengths that a run saved, newest steps first, and traces them, oldest first, for the page.

    A step whose loop had another capacity than the trace is left out: not its lengths alone decided its schedule.

    Returns:
      [{"step", "slots", "prompts" of a round, "answers" to each, "shards": [{"rounds": starts, "lengths", "slots",
      "starts"}]}]; the last three have a value for each answer of the shard, round after round.

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
        shards = trace_slots(length_RQK, Decoding(**saved["decoding"]))
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
                }
                for shard in shards
            ],
        }
