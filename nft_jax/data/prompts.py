r"""Problems as tokenised prompts, and (prompt, response) pairs as supervised examples, in tables of fixed width."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nft_jax.data.files import Problem
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.names import lookup

_SLOT = "{problem}"
_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."

# What stands for `{problem}` is replaced, other braces mean themselves. None: the tokenizer's own chat template.
TEMPLATES: dict[str, str | None] = {
    "plain": _SLOT,
    "plain_boxed": f"{_SLOT}\n{_BOXED}\n",
    "qwen_math": (
        f"<|im_start|>system\n{_BOXED}<|im_end|>\n<|im_start|>user\n{_SLOT}<|im_end|>\n<|im_start|>assistant\n"
    ),
    # The text of the prompts of DAPO-Math-17k, which is what verl's grader of it reads answers for.
    "dapo": (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        f"$Answer (without quotes) where $Answer is the answer to the problem.\n\n{_SLOT}\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    ),
    "chat": None,
}


class PromptTable(NamedTuple):
    """The prompts that fit, in the order of the problems.

    `token_NP`   int32 [prompts, max_prompt_tokens]  token ids, 0 to the right of a prompt
    `length_N`   int32 [prompts]  tokens of each prompt, from 1 to max_prompt_tokens
    `answers`    the reference answer of each prompt
    `prompts`    the exact text of each prompt, template included
    `problems`   the problem of each prompt
    `dropped`    how many problems were left out because their prompt is longer than max_prompt_tokens
    """

    token_NP: np.ndarray
    length_N: np.ndarray
    answers: list[str]
    prompts: list[str]
    problems: list[Problem]
    dropped: int


class ExampleTable(NamedTuple):
    """The supervised examples that fit, in the order of the pairs.

    `token_NP`           int32 [examples, max_prompt_tokens]  prompt token ids, 0 to the right
    `prompt_length_N`    int32 [examples]  tokens of each prompt
    `response_NT`        int32 [examples, max_answer_tokens]  response token ids with EOS at the end, 0 to the right
    `response_length_N`  int32 [examples]  tokens of each response, EOS included
    `dropped`            how many pairs were left out because a side of them is too long
    """

    token_NP: np.ndarray
    prompt_length_N: np.ndarray
    response_NT: np.ndarray
    response_length_N: np.ndarray
    dropped: int


def render(problem: str, tokenizer: Tokenizer, *, template: str) -> str:
    """The exact prompt text for a problem; ValueError for an unknown template or a missing chat template."""
    form = lookup(TEMPLATES, template, "prompt template")
    if form is None:
        return tokenizer.apply_chat_template([{"role": "user", "content": problem}])
    return form.replace(_SLOT, problem)  # str.format would stumble over the braces of \boxed{} and of the problem


def unwrap(text: str, template: str) -> str:
    """The problem that is in a prompt of a template with a text; a text that is no such prompt as it is."""
    before, after = TEMPLATES[template].split(_SLOT)
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        return text
    return text[len(before) : len(text) - len(after)]


def build_prompts(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    template: str,
    max_prompt_tokens: int,
    long_prompts: str = "drop",
    source: str = "the problems",
) -> PromptTable:
    """Tokenise the prompts of problems into a table; prompts longer than `max_prompt_tokens` tokens are dropped, never cut.

    With `long_prompts` "refuse", they are an error that names `source`, where the problems come from.

    Raises ValueError for an unknown template, a prompt without tokens, or if no prompt fits.
    """
    texts = [render(problem.problem, tokenizer, template=template) for problem in problems]
    ids = tokenizer.encode_batch(texts)
    length_N = _lengths(ids)
    _check_not_empty(length_N, texts)
    kept = np.flatnonzero(length_N <= max_prompt_tokens)
    if long_prompts == "refuse" and kept.size < len(problems):
        raise ValueError(f"{source}: {_too_long(problems, length_N, max_prompt_tokens)}")
    if not kept.size:
        raise ValueError(f"no prompt fits: {_needed('max_prompt_tokens', length_N, max_prompt_tokens)}")
    return PromptTable(
        token_NP=_padded([ids[i] for i in kept], max_prompt_tokens),
        length_N=length_N[kept],
        answers=[problems[i].answer for i in kept],
        prompts=[texts[i] for i in kept],
        problems=[problems[i] for i in kept],
        dropped=len(problems) - kept.size,
    )


def build_examples(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, max_prompt_tokens: int, max_answer_tokens: int
) -> ExampleTable:
    """Tokenise (prompt text, response text) pairs for supervised training, the first EOS id appended to each response.

    Prompt and response are tokenised apart, as in a rollout. A pair with a prompt of more than `max_prompt_tokens` tokens,
    or a response of more than `max_answer_tokens` with its EOS, is dropped, never cut.

    Raises ValueError for a prompt without tokens, or if no pair fits.
    """
    texts = [prompt for prompt, _ in pairs]
    prompt_ids = tokenizer.encode_batch(texts)
    end = tokenizer.eos_ids[0]
    response_ids = [ids + [end] for ids in tokenizer.encode_batch([response for _, response in pairs])]
    prompt_length_N, response_length_N = _lengths(prompt_ids), _lengths(response_ids)
    _check_not_empty(prompt_length_N, texts)
    kept = np.flatnonzero((prompt_length_N <= max_prompt_tokens) & (response_length_N <= max_answer_tokens))
    if not kept.size:
        raise ValueError(
            f"no example fits: {_needed('max_prompt_tokens', prompt_length_N, max_prompt_tokens)}; "
            f"{_needed('max_answer_tokens', response_length_N, max_answer_tokens)}"
        )
    return ExampleTable(
        token_NP=_padded([prompt_ids[i] for i in kept], max_prompt_tokens),
        prompt_length_N=prompt_length_N[kept],
        response_NT=_padded([response_ids[i] for i in kept], max_answer_tokens),
        response_length_N=response_length_N[kept],
        dropped=len(pairs) - kept.size,
    )


def _lengths(ids: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(map(len, ids), dtype=np.int32, count=len(ids))


def _check_not_empty(length_N: np.ndarray, texts: Sequence[str]) -> None:
    if length_N.size and not length_N.min():
        raise ValueError(f"prompt {length_N.argmin()} ({texts[length_N.argmin()]!r}) has no tokens to start from")


def _too_long(problems: Sequence[Problem], length_N: np.ndarray, limit: int) -> str:
    """How many prompts are longer than the limit, which is the first, how long is the longest, and what to set."""
    long = np.flatnonzero(length_N > limit)
    first, longest = long[0], length_N.max()
    return (
        f"{long.size} of {len(problems)} prompts have more than config.data.max_prompt_tokens={limit} tokens, the first "
        f"{problems[first].id!r} with {length_N[first]}, the longest {longest}; config.data.max_prompt_tokens={longest} "
        "keeps them all, config.data.long_prompts=drop leaves them out"
    )


def _needed(name: str, length_N: np.ndarray, limit: int) -> str:
    """What a limit is, what lengths there are, and the limit that keeps 90 % of them."""
    if not length_N.size:
        return "there are none"
    enough = int(np.quantile(length_N, 0.9, method="higher"))
    return (
        f"they have {length_N.min()} to {length_N.max()} tokens and {name} is {limit} ({name}={enough} would keep 90 %)"
    )


def _padded(ids: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Rows of ids as int32 [rows, width], 0 to the right: [[5, 6], [7]] at width 3 is [[5, 6, 0], [7, 0, 0]]."""
    length_N = _lengths(ids)
    table = np.zeros((len(ids), width), np.int32)
    inside = np.arange(width) < length_N[:, None]
    table[inside] = np.fromiter((token for row in ids for token in row), dtype=np.int32, count=int(length_N.sum()))
    return table
