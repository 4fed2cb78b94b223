r"""Prompt templates, and tables of tokenized prompts and of supervised (prompt, response) examples of fixed width."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nft_jax.data.control_tokens import TURN_MARK, MixedTextError, Prompt, blank, outside
from nft_jax.data.files import Problem
from nft_jax.data.template_files import SUFFIX, Request, render_file
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.names import lookup

_SLOT = "{problem}"
_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."

# `{problem}` stands for the problem; other braces are text. None stands for the tokenizer's own chat template.
TEMPLATES: dict[str, str | None] = {
    "plain": _SLOT,
    "plain_boxed": f"{_SLOT}\n{_BOXED}\n",
    "qwen_math": (
        f"<|im_start|>system\n{_BOXED}<|im_end|>\n<|im_start|>user\n{_SLOT}<|im_end|>\n<|im_start|>assistant\n"
    ),
    # The prompts of DAPO-Math-17k, whose answers verl's grader expects in this form.
    "dapo": (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        f"$Answer (without quotes) where $Answer is the answer to the problem.\n\n{_SLOT}\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    ),
    "chat": None,
}
# The roles that templates know. Another one is a text from outside as well.
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))


class PromptTable(NamedTuple):
    """The prompts that fit, in the order of the problems.

    Attributes:
      token_QP: int32, token ids, padded on the right with 0; P is `max_prompt_tokens`.
      length_Q: int32, tokens of each prompt, from 1 to P.
      answers: The reference answer of each prompt.
      prompts: The exact text of each prompt, template included.
      dropped: How many problems were left out because their prompt is longer than P.
      longest: Tokens of the longest prompt, those left out included.
    """

    token_QP: np.ndarray
    length_Q: np.ndarray
    answers: list[str]
    prompts: list[str]
    problems: list[Problem]
    dropped: int
    longest: int = 0


class ExampleTable(NamedTuple):
    """The supervised examples that fit, in the order of the pairs.

    Attributes:
      token_QP: int32, token ids of the prompts, padded on the right with 0; P is `max_prompt_tokens`.
      prompt_length_Q: int32, tokens of each prompt.
      response_QT: int32, token ids of the responses, EOS included, padded on the right with 0; T is
        `max_answer_tokens`.
      response_length_Q: int32, tokens of each response, EOS included.
      dropped: How many pairs were left out because their prompt or response is too long.
    """

    token_QP: np.ndarray
    prompt_length_Q: np.ndarray
    response_QT: np.ndarray
    response_length_Q: np.ndarray
    dropped: int


def render(problem: str, tokenizer: Tokenizer, *, template: str, messages: Sequence[tuple[str, str]] = ()) -> str:
    """Returns the exact prompt text for a problem after the chat messages (role, text) before it.

    Raises:
      FileNotFoundError, ValueError: as `render_prompts`.
    """
    return render_prompts([(messages, problem)], tokenizer, template=template)[0].text


def render_prompts(requests: Sequence[Request], tokenizer: Tokenizer, *, template: str) -> list[Prompt]:
    """Renders the prompts of problems, each after the chat messages (role, text) before it, with their outlines.

    Raises:
      FileNotFoundError: if the template is a file that does not exist.
      ValueError: if the template is unknown, has no place for the messages, leaves out the problem, or is "chat" and
        the tokenizer has no usable chat template.
    """
    outlines = [
        ([(role if role in _ROLES else blank(role), blank(text)) for role, text in messages], blank(problem))
        for messages, problem in requests
    ]
    texts = _render_texts([*requests, *outlines], tokenizer, template)
    prompts = [Prompt(*both) for both in zip(texts[: len(requests)], texts[len(requests) :], strict=True)]
    for (_, problem), (_, outline), (text, of_outline) in zip(requests, outlines, prompts, strict=True):
        if text == of_outline and problem != outline:
            place = f" ({tokenizer.place})" if tokenizer.place else ""
            raise ValueError(
                f"config.data.template={template}{place} leaves out the problem {problem[:40]!r}: its prompt is "
                f"{text[:80]!r}; use a template that writes the text of the last message, such as "
                "--config.data.template=qwen_math"
            )
    return prompts


def _render_texts(requests: Sequence[Request], tokenizer: Tokenizer, template: str) -> list[str]:
    if template.endswith(SUFFIX):
        return render_file(template, requests)
    form = lookup(TEMPLATES, template, "prompt template")
    if form is None:
        chats = [[*messages, ("user", problem)] for messages, problem in requests]
        return tokenizer.apply_chat_templates(
            [[{"role": role, "content": text} for role, text in chat] for chat in chats]
        )
    for messages, problem in requests:
        if messages:
            raise ValueError(
                f"config.data.template={template} has no place for the {len(messages)} messages before the problem "
                f"{problem[:40]!r} (config.data.system, config.data.shots, or a chat in the problem file; the first, "
                f"by {messages[0][0]!r}: {messages[0][1][:40]!r}); use --config.data.template=chat, or a FILE{SUFFIX} "
                "with `system` and `shots`; of a chat, config.data.train_fields=prompt.1.content,ANSWER takes one "
                "message alone"
            )
    # Not str.format: \boxed{} and the problem contain braces.
    return [form.replace(_SLOT, problem) for _, problem in requests]


def missing_marks(template: str, tokenizer: Tokenizer) -> list[str]:
    """Returns the marks of turns in a template's prompts that are no tokens, so that they are cut into pieces.

    Raises:
      ValueError: as `render`.
    """
    marks = dict.fromkeys(TURN_MARK.findall(render("1", tokenizer, template=template)))
    return [mark for mark in marks if len(tokenizer.encode(mark)) != 1]


def template_notes(template: str, tokenizer: Tokenizer) -> list[str]:
    """Returns one line that names the missing marks of a template, and the templates that miss none; else no line."""

    def fits(name):
        try:
            return not missing_marks(name, tokenizer)
        except ValueError:
            return False

    if missing := missing_marks(template, tokenizer):
        others = ", ".join(filter(fits, TEMPLATES))
        return [
            f"template  {template}: this tokenizer cuts {', '.join(missing)} into pieces, so the model was hardly "
            f"trained on such prompts; values of config.data.template that fit: {others}"
        ]
    return []


def unwrap(text: str, template: str) -> str:
    """Removes the text of a template around a problem; a text that is no such prompt comes back unchanged."""
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
    messages: Sequence[tuple[str, str]] = (),
    long_prompts: str = "drop",
    source: str = "the problems",
) -> PromptTable:
    """Tokenizes the prompts of problems into a table.

    Args:
      messages: The chat messages (role, text) before every problem.
      long_prompts: What happens to prompts of more than `max_prompt_tokens` tokens: "drop" leaves them out, "refuse"
        raises an error. A prompt is never cut.
      source: The name of the problems in that error.

    Raises:
      ValueError: if the template is unknown, a prompt has no tokens, no prompt fits, or a long prompt is refused.
    """
    requests = [((*messages, *each.messages), each.problem) for each in problems]
    prompts = render_prompts(requests, tokenizer, template=template)
    try:
        ids = tokenizer.encode_prompts(prompts)
    except MixedTextError as error:
        raise ValueError(f"{source}: problem {problems[error.place].id!r}: {error}") from error
    length_Q = _count_tokens(ids)
    _check_not_empty(length_Q, prompts)
    kept = np.flatnonzero(length_Q <= max_prompt_tokens)
    if long_prompts == "refuse" and kept.size < len(problems):
        raise ValueError(f"{source}: {_describe_long_prompts(problems, length_Q, max_prompt_tokens)}")
    if not kept.size:
        raise ValueError(f"no prompt fits: {_describe_lengths('max_prompt_tokens', length_Q, max_prompt_tokens)}")
    return PromptTable(
        token_QP=_pad_rows([ids[i] for i in kept], max_prompt_tokens),
        length_Q=length_Q[kept],
        answers=[problems[i].answer for i in kept],
        prompts=[prompts[i].text for i in kept],
        problems=[problems[i] for i in kept],
        dropped=len(problems) - kept.size,
        longest=int(length_Q.max()),
    )


def build_examples(
    pairs: Sequence[tuple[Prompt, str]],
    tokenizer: Tokenizer,
    *,
    max_prompt_tokens: int,
    max_answer_tokens: int,
    source: str = "the examples",
) -> ExampleTable:
    """Tokenizes (prompt, response text) pairs for supervised training; the first EOS id ends each response.

    Prompt and response are tokenized separately, as in a rollout. A pair is left out, never cut, if its prompt has more
    than `max_prompt_tokens` tokens or its response, with EOS, more than `max_answer_tokens`. Errors name the pairs by
    `source`.

    Raises:
      ValueError: if a prompt has no tokens, no pair fits, or a text can't be distinguished from its template's.
    """
    prompts, end = [prompt for prompt, _ in pairs], tokenizer.eos_ids[0]
    try:
        prompt_ids = tokenizer.encode_prompts(prompts)
        response_ids = [ids + [end] for ids in tokenizer.encode_prompts([outside(text) for _, text in pairs])]
    except MixedTextError as error:
        raise ValueError(f"{source}: worked solution {error.place + 1}: {error}") from error
    prompt_length_Q, response_length_Q = _count_tokens(prompt_ids), _count_tokens(response_ids)
    _check_not_empty(prompt_length_Q, prompts)
    kept = np.flatnonzero((prompt_length_Q <= max_prompt_tokens) & (response_length_Q <= max_answer_tokens))
    if not kept.size:
        prompts = _describe_lengths("config.data.max_prompt_tokens", prompt_length_Q, max_prompt_tokens)
        responses = _describe_lengths("config.rollout.max_answer_tokens", response_length_Q, max_answer_tokens)
        raise ValueError(f"{source}: no worked solution fits: of the prompts, {prompts}; of the solutions, {responses}")
    return ExampleTable(
        token_QP=_pad_rows([prompt_ids[i] for i in kept], max_prompt_tokens),
        prompt_length_Q=prompt_length_Q[kept],
        response_QT=_pad_rows([response_ids[i] for i in kept], max_answer_tokens),
        response_length_Q=response_length_Q[kept],
        dropped=len(pairs) - kept.size,
    )


def _count_tokens(ids: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(map(len, ids), dtype=np.int32, count=len(ids))


def _check_not_empty(length_Q: np.ndarray, prompts: Sequence[Prompt]) -> None:
    if length_Q.size and not length_Q.min():
        raise ValueError(
            f"prompt {length_Q.argmin()} ({prompts[length_Q.argmin()].text!r}) has no tokens to start from"
        )


def _describe_long_prompts(problems: Sequence[Problem], length_Q: np.ndarray, limit: int) -> str:
    """Describes the prompts above the limit, the first and the longest of them, and which settings accept them."""
    long = np.flatnonzero(length_Q > limit)
    first, longest = long[0], length_Q.max()
    return (
        f"{long.size} of {len(problems)} prompts have more than config.data.max_prompt_tokens={limit} tokens, the "
        f"first {problems[first].id!r} with {length_Q[first]}, the longest {longest}; "
        f"config.data.max_prompt_tokens={longest} keeps them all, config.data.long_prompts=drop leaves them out"
    )


def _describe_lengths(name: str, length_Q: np.ndarray, limit: int) -> str:
    """Describes the lengths, the limit `name`, and the value of it that would keep 90 % of them."""
    if not length_Q.size:
        return "there are none"
    enough = int(np.quantile(length_Q, 0.9, method="higher"))
    return (
        f"they have {length_Q.min()} to {length_Q.max()} tokens and {name} is {limit} ({name}={enough} would keep 90 %)"
    )


def _pad_rows(ids: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Returns lists of ids as int32 `[rows, width]`, padded on the right with 0.

    At width 3, [[5, 6], [7]] becomes [[5, 6, 0], [7, 0, 0]].
    """
    length_Q = _count_tokens(ids)
    table = np.zeros((len(ids), width), np.int32)
    inside = np.arange(width) < length_Q[:, None]
    table[inside] = np.fromiter((token for row in ids for token in row), dtype=np.int32, count=int(length_Q.sum()))
    return table
