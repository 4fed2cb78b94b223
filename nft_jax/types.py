"""The axis legend, and the values that flow from prompts to an update.

Axis legend (a suffix `_QKT` names the axes of an array; lower case inside `shard_map` means this device's piece):

    Q prompts (groups)      K answers per prompt     B = Q·K answers, or rows of tokens
    P prompt tokens         T answer tokens, or tokens of a row
    L layers                D width                  F feed-forward width
    N query heads           G key-value heads        H head size
    V vocabulary            S positions that can be attended to

Words are otherwise whole: `rate` is the share of right answers of a group (r̂), `ratio` is π_θ/π_old of a token or an
answer (R), `old_logp` is log π_old. Log-probs, rates, rewards and losses are float32.
"""

from typing import NamedTuple

import jax

Array = jax.Array


class Tokens(NamedTuple):
    """Rows of tokens as the model reads them; several sequences may share a row.

    `token_BT`     int32  token ids, 0 where the row is empty
    `segment_BT`   int32  which sequence of the row a token belongs to, from 0; −1 = padding
    `position_BT`  int32  position inside its sequence, from 0
    """

    token_BT: Array
    segment_BT: Array
    position_BT: Array


class LossBatch(NamedTuple):
    """What a loss sees besides the policy's own log-probs: one value per token of packed rows.

    The values of a token stand where it is predicted: at the place of the token before it. The value of an answer or of
    a group is repeated on each of its tokens. Places that predict no token of an answer (in the prompt, padding) carry
    −1 in `answer_BT` and `pair_BT`, and 0 everywhere else.

    `old_logp_BT`   float32  log π_old(token), from the policy that sampled it
    `answer_BT`     int32    id of the token's answer inside its row, from 0; −1 = token of no answer
    `reward_BT`     float32  1 if the token's answer is right, 0 if it is wrong
    `rate_BT`       float32  r̂, the share of right answers in the token's group, in [0, 1]
    `advantage_BT`  float32  the advantage of the token's answer, as the loss's own `advantage` function gives it
    `pair_BT`       int32    id of the (right, wrong) pair inside the row, for losses of unit "pair"; −1 = none
    """

    old_logp_BT: Array
    answer_BT: Array
    reward_BT: Array
    rate_BT: Array
    advantage_BT: Array
    pair_BT: Array


class Totals(NamedTuple):
    """What one optimizer batch holds, over all devices and before it is cut into micro-batches (float32 scalars).

    `answers`  answers present     `tokens`  answer tokens present     `pairs`  (right, wrong) pairs present
    """

    answers: Array
    tokens: Array
    pairs: Array


class Rollout(NamedTuple):
    """Sampled answers. Tokens after an answer's end are 0, and so are their log-probs.

    `token_BT`     int32    the answer's tokens; its end-of-sequence token is part of it, and is trained
    `logp_BT`      float32  log-prob of each under the distribution that it was drawn from
    `length_B`     int32    number of tokens, end of sequence included
    `truncated_B`  bool     the limit came before an end of sequence
    """

    token_BT: Array
    logp_BT: Array
    length_B: Array
    truncated_B: Array


class Groups(NamedTuple):
    """Whole groups: a prompt, its K answers, and what the verifier said of them.

    `prompt_Q`        int32    row of the prompt table
    `token_QKT`       int32    answers, as in `Rollout`
    `logp_QKT`        float32  log-probs by the sampler
    `length_QK`       int32    answer tokens
    `truncated_QK`    bool     cut at the limit
    `verdict_QK`      int32    status codes of `verify.grade.STATUSES`
    `reward_QK`       float32  1 = right
    `rate_Q`          float32  share of right answers
    """

    prompt_Q: Array
    token_QKT: Array
    logp_QKT: Array
    length_QK: Array
    truncated_QK: Array
    verdict_QK: Array
    reward_QK: Array
    rate_Q: Array


class Prompts(NamedTuple):
    """The tokenised prompt table, whole on every device, so that the program draws its own prompts.

    `token_NP`  int32  padded on the right with 0      `length_N`  int32
    """

    token_NP: Array
    length_N: Array


class Ended(NamedTuple):
    """Some answers that have ended: those of a shard's round numbered `place_F`; beyond the last one, none."""

    place_F: Array
    request_F: Array
    problem_F: Array
    token_FT: Array
    length_F: Array
    gradable_F: Array
