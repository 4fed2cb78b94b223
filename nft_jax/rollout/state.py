"""The state of the decode loop: what is requested, what is under way, and what is done."""

from typing import NamedTuple, Protocol

from nft_jax.models.cache import Cache
from nft_jax.types import Array, Ended, Prompts, Rollout


class Requests(NamedTuple):
    """What is asked of the engine: K answers to each of Q prompts.

    `prompts`     Q rows of the prompt table      `problem_Q`  int32, which rows: what the verifier is told
    `request_QK`  uint32 numbers, global and never reused
    `greedy_QK`   bool: the likeliest tokens instead of a draw
    """

    prompts: Prompts
    problem_Q: Array
    request_QK: Array
    greedy_QK: Array


class Submit(Protocol):
    """Hands `answers` ended answers to the verifier at a time; returns a ticket, int32 `[1]`. Called on each shard."""

    answers: int

    def __call__(self, ended: Ended, round_answers: int) -> Array: ...


class Slots(NamedTuple):
    """S answers in progress.

    `answer_S`  int32  which answer of the window a slot works on; one beyond the last where it is free
    `drawn_S`   int32  tokens of it that are drawn    `token_S`  int32  the last of them, or of the prompt
    `cache`     all tokens before that one
    """

    answer_S: Array
    drawn_S: Array
    token_S: Array
    cache: Cache


class Progress(NamedTuple):
    """What is under way in a window of one round or two, also between two calls; numbers are int32 `[1]`.

    `slots`    what is being worked on      `rollout`  what has been drawn, by answer of the window
    `queue`    the next answer that no slot has taken yet
    `read`     the prompts read last, as a cache of that many slots: the window's from `first` to before `known`
    `ended_B`  bool, answers that have ended and that the verifier has not been handed
    """

    slots: Slots
    rollout: Rollout
    queue: Array
    read: Cache
    first: Array
    known: Array
    ended_B: Array


class Loop(NamedTuple):
    """State of the loop: `capacity` tokens that the slots had time for; whether there is work left; the last ticket."""

    progress: Progress
    capacity: Array
    running: Array
    ticket: Array
