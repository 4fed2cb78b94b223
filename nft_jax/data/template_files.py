"""Prompt templates of your own: a Jinja file with `problem` and, if it uses them, `system` and `shots`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nft_jax.data.template_process import render_apart

SUFFIX = ".jinja"
_NAMES = ("problem", "system", "shots")

# The chat messages before a problem, as (role, text), and the problem.
Request = tuple[Sequence[tuple[str, str]], str]


def render_file(path: str, requests: Sequence[Request]) -> list[str]:
    """Returns the prompt text of each problem; a last line break of the file is not part of it, as usual with Jinja.

    Args:
      path: The file; its variables are `problem`, `system` (text, or empty) and `shots`, a list whose items have
        `problem` and `response`.
      requests: Their messages are system messages, and shots in pairs of a user's message and an assistant's.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no template, does not use `problem`, uses another variable, lacks what is given, or takes too
        much time or memory.
    """
    template, where = read_template(path), f"config.data.template={path}"
    inputs = [_name_variables(messages, problem) for messages, problem in requests]
    rendering = render_apart("file", template, inputs)
    if rendering.used is None:
        raise ValueError(f"{where} is no Jinja template: {rendering.fault}")
    if other := sorted({*rendering.used} - {*_NAMES}):
        raise ValueError(f"{where} uses {', '.join(other)}; it may use {', '.join(_NAMES)}")
    if "problem" not in rendering.used:
        raise ValueError(f"{where} does not use `problem`: write {{{{ problem }}}} where it goes")
    for name in ("system", "shots"):
        if name not in rendering.used and any(each[name] for each in inputs):
            raise ValueError(f"{where} does not use `{name}`, which config.data.{name} gives")
    if rendering.fault:
        raise ValueError(f"{where}: {rendering.fault}")
    return rendering.texts


def read_template(path: str) -> str:
    """Returns the text of a template file.

    Raises:
      FileNotFoundError, ValueError: if there is no such file, or it is not UTF-8.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"config.data.template={path}: no such file; it would be a Jinja template of a prompt")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"config.data.template={path} is not UTF-8: {error}") from error


def _name_variables(messages: Sequence[tuple[str, str]], problem: str) -> dict[str, Any]:
    system = "\n".join(text for role, text in messages if role == "system")
    turns = [text for role, text in messages if role != "system"]
    shots = [{"problem": ask, "response": answer} for ask, answer in zip(turns[::2], turns[1::2], strict=True)]
    return {"problem": problem, "system": system, "shots": shots}
