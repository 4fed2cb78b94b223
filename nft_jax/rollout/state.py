"""What the rollout takes and gives, and the state of its decode loop."""

from typing import NamedTuple, Protocol

from nft_jax.models.cache import Cache
from nft_jax.types import Array, EndedAnswers, Prompts, Rollout


class Requests(NamedTuple):
    """One round's requests: K answers to each of Q prompts. Several have one more leading axis, `[rounds, Q, …]`.

    Attributes:
      prompts: Q rows of the prompt table.
      problem_Q: int32, their row numbers, which the verifier gets.
      request_QK: uint32, request numbers: global and never reused. An answer's random numbers depend on them alone.
      limit_QK: int32, the most tokens that each answer may have, at most `config.max_answer_tokens`.
      greedy_QK: bool, whether the answer takes the likeliest tokens instead of drawing.
    """

    prompts: Prompts
    problem_Q: Array
    request_QK: Array
    limit_QK: Array
    greedy_QK: Array


class Round(NamedTuple):
    """The answers to one round of requests.

    Attributes:
      rollout: The answers `[B = Q·K]`; a prompt's K answers are adjacent.
      capacity_X: int32, tokens that each data shard could have drawn with every slot busy.
      ticket_X: int32, one value a data shard that depends on every submission to the verifier. A call that takes it
        as an input therefore runs after all submissions.
      age_B: int32, steps since each answer's first token, 0 in the step that began it; None without
        `rollout.partial`.
      draw_Q: int32, the draws of the prompts that were answered; None without `rollout.partial`, where they are those
        of the first round of the requests.
    """

    rollout: Rollout
    capacity_X: Array
    ticket_X: Array
    age_B: Array | None = None
    draw_Q: Array | None = None


class Submit(Protocol):
    """Submits `answers` ended answers at a time to the verifier, on one data shard.

    A round of the shard has `round_answers`; None: the answers are of any round. Returns a ticket, int32 `[1]`.
    """

    answers: int

    def __call__(self, ended: EndedAnswers, round_answers: int | None) -> Array: ...


class Slots(NamedTuple):
    """S answers in progress.

    Attributes:
      answer_S: int32, the answer that a slot works on, a number in [0, B); B where the slot is free.
      drawn_S: int32, how many of its tokens are drawn.
      token_S: int32, its last token; before the first draw, the last token of its prompt.
      match_S: int32, its state in the automaton of the texts that end an answer.
      cache: Keys and values of all tokens before that one.
    """

    answer_S: Array
    drawn_S: Array
    token_S: Array
    match_S: Array
    cache: Cache


class PromptBatch(NamedTuple):
    """The prompts that were read last; numbers are int32 `[1]`.

    Attributes:
      cache: Their keys and values, as a cache of that many slots.
      first: Number of the first prompt.
      following: Number of the first prompt that is not read yet.
    """

    cache: Cache
    first: Array
    following: Array


class Progress(NamedTuple):
    """A data shard's progress on the answers of one or several rounds; each round passes it on to the next.

    The B answers are numbered over all rounds of the requests, the current round's first; with `rollout.partial` in the
    order of their draws. Scalars have shape `[1]`, so that they form one array `[X]` over the data shards.

    Attributes:
      rollout: What is drawn so far of the B answers.
      next_answer: int32, the first answer that no slot has taken yet.
      prompts: None between two steps: each step reads prompts with its own weights.
      unsubmitted_B: bool, finished answers that are not submitted to the verifier yet.
      age_B: As in `Round`.
      draw_Q: int32, the draw of each prompt of the requests; None without `rollout.partial`.
    """

    slots: Slots
    rollout: Rollout
    next_answer: Array
    prompts: PromptBatch | None
    unsubmitted_B: Array
    age_B: Array | None = None
    draw_Q: Array | None = None

    def draws(self, rounds: int, shards: int) -> Array:
        """Returns the draws, `[rounds, Q]`, of the requests that go on with the progress of all data shards."""
        return self.draw_Q.reshape(shards, rounds, -1).swapaxes(0, 1).reshape(rounds, -1)


class Loop(NamedTuple):
    """State of the decode loop of one round.

    Attributes:
      capacity: int32 `[1]`, tokens that could have been drawn with every slot busy.
      running: bool, whether the loop goes on.
      ticket: int32 `[1]`, of the last submission to the verifier.
    """

    progress: Progress
    capacity: Array
    running: Array
    ticket: Array
