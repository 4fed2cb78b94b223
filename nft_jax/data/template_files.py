"""Prompt templates of your own: a Jinja file with `problem` and, if it uses them, `system` and `shots`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

SUFFIX = ".jinja"
_NAMES = ("problem", "system", "shots")


def render_file(path: str, problem: str, messages: Sequence[tuple[str, str]]) -> str:
    """Returns the prompt text of a problem; a last line break of the file is not part of it, as usual with Jinja.

    Args:
      path: The file; its variables are `problem`, `system` (text, or empty) and `shots`, a list whose items have
        `problem` and `response`.
      messages: The chat messages before the problem, as (role, text): system messages, and shots in pairs of a user's
        message and an assistant's.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no template, does not use `problem`, uses another variable, or lacks what is given.
    """
    template, used = _read(path)
    system = "\n".join(text for role, text in messages if role == "system")
    turns = [text for role, text in messages if role != "system"]
    shots = [{"problem": ask, "response": answer} for ask, answer in zip(turns[::2], turns[1::2], strict=True)]
    for name, given in (("system", system), ("shots", shots)):
        if given and name not in used:
            raise ValueError(f"config.data.template={path} does not use `{name}`, which config.data.{name} gives")
    try:
        return template.render(problem=problem, system=system, shots=shots)
    except TemplateError as error:
        raise ValueError(f"config.data.template={path}: {error}") from error


@functools.cache
def _read(path: str):
    """Returns the template and the names of the variables that it uses."""
    file, environment = Path(path).expanduser(), ImmutableSandboxedEnvironment()
    if not file.is_file():
        raise FileNotFoundError(f"config.data.template={path}: no such file; it would be a Jinja template of a prompt")
    text = file.read_text(encoding="utf-8")
    try:
        used, template = meta.find_undeclared_variables(environment.parse(text)), environment.from_string(text)
    except TemplateError as error:
        raise ValueError(f"config.data.template={path} is no Jinja template: {error}") from error
    if other := sorted(used - {*_NAMES}):
        raise ValueError(f"config.data.template={path} uses {', '.join(other)}; it may use {', '.join(_NAMES)}")
    if "problem" not in used:
        raise ValueError(f"config.data.template={path} does not use `problem`: write {{{{ problem }}}} where it goes")
    return template, used
