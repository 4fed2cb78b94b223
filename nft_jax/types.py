"""The axis legend, and the values that flow from prompts to an update.

Axis legend. A suffix such as `_QKT` names the axes of an array. A lower-case letter stands for a
part of its axis: the part of a device inside `shard_map`, of a shard, or of a chunk. A digit is an axis of that size.

    A  answers that are submitted to the verifier at once
    B  rows of a batch: the B = Q·K answers of a rollout, or packed rows of tokens
    C  columns: places of a whole sequence (prompt and answer) that can be attended to
    D  width
    E  problems of an evaluation batch
    F  feed-forward width
    G  key-value heads
    H  head size
    I  sequences (a prompt and an answer each) of a minibatch
    J  sequences of a unit: 1 answer, or a pair of 2
    K  answers per prompt
    L  layers
    M  several axes flattened into one: all tokens of all rows, or all queries of a key-value head
    N  query heads
    O  optimizer updates of a step
    P  prompt tokens
    Q  prompts (groups)
    R  query heads per key-value head; rounds of a step
    S  decode slots
    T  tokens of a row: of an answer, or of a packed row
    U  units (see J) of a group or a minibatch
    V  vocabulary
    W  columns of a block of the decode cache
    X  data shards
    Y  blocks of the decode cache
    Z  stacks of layers of the decode cache

All other names are whole words: `rate` is the share of correct answers of a group (r̂), `ratio` is π_θ/π_old of a token
or an answer (R), `old_logp` is log π_old. Log-probs, rates, rewards and losses are float32.
"""

from typing import NamedTuple

import jax

Array = jax.Array


class Tokens(NamedTuple):
    """Rows of tokens as the model reads them; several sequences may share a row.

    Attributes:
      token_BT: int32, token ids; 0 where the row is empty.
      segment_BT: int32, which sequence of the row a token belongs to, from 0; −1 is padding.
      position_BT: int32, position inside its sequence, from 0.
    """

    token_BT: Array
    segment_BT: Array
    position_BT: Array


class LossBatch(NamedTuple):
    """What a loss gets besides the policy's own log-probs: one value per token of packed rows.

    The values of a token are at the place that predicts it: the place of the token before it. The value of an answer or
    of a group is repeated on each of its tokens. Places that predict no token of an answer (in the prompt, padding)
    have −1 in `answer_BT` and `pair_BT`, and 0 everywhere else.

    Attributes:
      old_logp_BT: float32, log π_old of the token, from the policy that sampled it.
      answer_BT: int32, id of the token's answer inside its row, from 0; −1 is a token of no answer.
      reward_BT: float32, 1 if the token's answer is correct, 0 if it is incorrect.
      rate_BT: float32, r̂, the share of correct answers in the token's group, in [0, 1].
      advantage_BT: float32, advantage of the token's answer, from the loss's own `advantage` function.
      pair_BT: int32, id of the (correct, incorrect) pair inside the row, for losses of unit "pair"; −1 is none.

    The others are None, and cost nothing, unless the loss declares that it reads them:
      sampler_logp_BT: float32, log-prob by the sampler; `old_logp_BT` may be recomputed by the trainer.
      entropy_BT: float32, entropy of the policy's distribution of the token, in nats; with a gradient.
      truncated_BT: float32, 1 if the answer was cut at the limit.
      length_BT: float32, tokens of the whole answer, also where tokens were rejected.
      complete_BT: float32, 1 if no answer of the group was truncated, so that its rate is one of complete answers.
      graded_BT: float32, the grader's reward of the answer in [0, 1]; that of its verdict if it gives no other.
      token_reward_BT: float32, the token's own reward, from the function of `loss.token_reward`; 0 without one.
      teacher_logp_BT: float32, log-prob by the teacher of `distillation.teacher`.
      key_BT: a random key for the token, the same however the answers are packed and split.
      choice_BT: float32, what the loss's `prepare` wrote; 0 before.
    """

    old_logp_BT: Array
    answer_BT: Array
    reward_BT: Array
    rate_BT: Array
    advantage_BT: Array
    pair_BT: Array
    sampler_logp_BT: Array | None = None
    entropy_BT: Array | None = None
    truncated_BT: Array | None = None
    length_BT: Array | None = None
    complete_BT: Array | None = None
    graded_BT: Array | None = None
    token_reward_BT: Array | None = None
    teacher_logp_BT: Array | None = None
    key_BT: Array | None = None
    choice_BT: Array | None = None


class Totals(NamedTuple):
    """Counts of one minibatch over all devices, before it is split into micro-batches (float32 scalars).

    `tokens` counts answer tokens, `pairs` counts (correct, incorrect) pairs.
    """

    answers: Array
    tokens: Array
    pairs: Array


class Rollout(NamedTuple):
    """Sampled answers. Tokens after an answer's end are 0, and so are their log-probs.

    Attributes:
      token_BT: int32, the answer's tokens; its end-of-sequence token is one of them, and is trained.
      logp_BT: float32, log-prob of each token under the distribution that it was drawn from.
      length_B: int32, number of tokens, end of sequence included.
      truncated_B: bool, whether the answer reached the limit before an end of sequence.
    """

    token_BT: Array
    logp_BT: Array
    length_B: Array
    truncated_B: Array


class Groups(NamedTuple):
    """Whole groups: a prompt, its K answers and their verdicts.

    Attributes:
      prompt_Q: int32, row of the prompt table.
      token_QKT: int32, answers, as in `Rollout`.
      logp_QKT: float32, log-probs by the sampler.
      length_QK: int32, answer tokens.
      truncated_QK: bool, whether the answer was cut at the limit.
      verdict_QK: int32, status codes: indices into `verify.grade.STATUSES`.
      reward_QK: float32, 1 for a correct answer, else 0.
      rate_Q: float32, share of correct answers.
      graded_QK: float32, rewards in [0, 1] of a grader that returns some; None if it gives verdicts alone.
      age_QK: int32, steps since the answer's first token; None if all began in this step, and while groups are carried
        without `rollout.partial`.
    """

    prompt_Q: Array
    token_QKT: Array
    logp_QKT: Array
    length_QK: Array
    truncated_QK: Array
    verdict_QK: Array
    reward_QK: Array
    rate_Q: Array
    graded_QK: Array | None = None
    age_QK: Array | None = None

    @property
    def earned_QK(self) -> Array:
        """float32, what advantages are made of: the grader's rewards, or those of its verdicts."""
        return self.reward_QK if self.graded_QK is None else self.graded_QK


class SeenTokens(NamedTuple):
    """What the update that trains a token saw of it (float32); 0 where no update trains one.

    Attributes:
      old: log π_old, as the loss read it.
      new: log π_θ, at the weights of the update.
      entropy: Entropy of π_θ at the token, in nats.
      multiplier: −∂(Σ losses, KL term included)/∂(log π_θ), before the normalizer.
    """

    old: Array
    new: Array
    entropy: Array
    multiplier: Array


class WatchedGroups(NamedTuple):
    """Groups of the last round of a step, whose tokens are recorded. The axis Q counts them alone.

    Attributes:
      place_Q: int32, their places among the groups of the round.
      update_Q: int32, which update of the step trains them, from 0; −1: none.
      seen: Arrays `[Q, K, T]`.
    """

    place_Q: Array
    update_Q: Array
    seen: SeenTokens


class Prompts(NamedTuple):
    """Tokenized prompts. Every device holds the whole table of training prompts, from which the program draws.

    Attributes:
      token_QP: int32, padded on the right with 0.
      length_Q: int32, prompt tokens.
    """

    token_QP: Array
    length_Q: Array


class EndedAnswers(NamedTuple):
    """Finished answers of one data shard, for the verifier.

    Attributes:
      place_A: int32, number of the answer on its shard, in [0, B); B where the place is empty.
      problem_A: int32, problem index into the grader's reference answers.
      token_AT: int32, answer tokens.
      length_A: int32, how many of the tokens belong to the answer.
      gradable_A: bool, False for empty places and truncated answers.
    """

    place_A: Array
    request_A: Array
    problem_A: Array
    token_AT: Array
    length_A: Array
    gradable_A: Array
