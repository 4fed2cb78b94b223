"""The words of a command line before any flag is parsed: home folders, and words given twice."""

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Flag(NamedTuple):
    """The value of a flag, None where it isn't given, and the other words of the command line."""

    value: str | None
    rest: list[str]


def prepare(words: list[str]) -> list[str]:
    """Returns the words with two dashes before each flag, and with home folders in place of ~.

    If a setting is given twice, the last value counts, because scripts add their user's words after their own. A line
    on the standard error names both values.

    Raises:
      ValueError: for a config or workdir that is given twice, and for bytes that are no text.
    """
    for word in words:
        if re.search("[\ud800-\udfff]", word):
            raise ValueError(f"{word}: its bytes are no text in the encoding {sys.getfilesystemencoding()}")
    words = [_expand_home(re.sub("^-(?=[A-Za-z])", "--", word)) for word in words]
    for flag, first, again in _find_given_twice(words):
        if flag in ("--config", "--workdir"):
            raise ValueError(f"{flag} is given twice: {first!r} and {again!r}")
        if first != again:
            print(f"{flag} is given twice: {first!r}, and then {again!r}, which counts", file=sys.stderr, flush=True)
    return words


def take(words: list[str], flag: str) -> Flag:
    """Takes `flag=VALUE` or `flag VALUE` out of the words."""
    for place, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return Flag(word.removeprefix(f"{flag}="), [*words[:place], *words[place + 1 :]])
        if word == flag and place + 1 < len(words):
            return Flag(words[place + 1], [*words[:place], *words[place + 2 :]])
    return Flag(None, list(words))


def leave_out(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Returns the words without these flags and their values; a program may not be given a workdir twice."""
    rest = list(words)
    for flag in flags:
        while (taken := take(rest, flag)).value is not None:
            rest = taken.rest
    return rest


def _find_given_twice(words: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yields each flag that was given before, with both values."""
    given: dict[str, str] = {}
    for word, following in itertools.pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            value = value if equals else following
            if flag in given:
                yield flag, given[flag], value
            given[flag] = value


def _expand_home(word: str) -> str:
    """Returns `--flag=~/PATH` with the home folder in place of ~, which shells leave there."""
    name, equals, value = word.partition("=")
    try:
        return f"{name}={Path(value).expanduser()}" if equals and value.startswith("~") else word
    except RuntimeError:  # no such user, or a text that is no path
        return word
