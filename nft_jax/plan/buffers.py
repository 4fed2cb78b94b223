"""The largest buffers of a program, from the files in which XLA's compilers say where each result is kept."""

import re
from pathlib import Path
from typing import NamedTuple

from nft_jax.machine.chips import GIB
from nft_jax.plan import hlo

# Files of one program have one prefix; a program that is refused has these two as well.
_ASSIGNMENT, _PROGRAM = "after_optimizations-buffer-assignment.txt", "after_optimizations.txt"
# In the main memory, @0: other spaces are a chip's fast memories and flags.
_VALUE = re.compile(r"^ value: <\d+ (\S+?)(?:\{[\d,]*\})?( \(phi\))? @0> \(size=(\d+),offset=(\d+)\): (\w+\[\S+)$")


class Buffer(NamedTuple):
    """A place in a device's memory.

    Attributes:
      bytes: Its size.
      shape: Type, axes and layout of the first result that it holds.
      name: The instruction with that result.
      scope: Path of the function names and scopes that the instruction comes from.
      results: How many results of that size it holds, one after the other or updated in place.
    """

    bytes: int
    shape: str
    name: str
    scope: str
    results: int

    def __str__(self) -> str:
        return f"{self.bytes / GIB:.2f} GiB {self.shape} {self.name}, {self.scope or 'of no named function'}"


def largest_buffers(folder: Path, count: int = 8) -> list[Buffer]:
    """Returns the largest places, largest first; they need not all be in use at the same time.

    Args:
      folder: What the compiler option `xla_dump_to` named; [] if the compiler wrote no such files there.
    """
    path = max(folder.glob(f"*{_ASSIGNMENT}"), key=lambda path: path.stat().st_size, default=None)
    if path is None:
        return []
    places: dict[tuple[int, int, int], list[tuple[bool, str, str]]] = {}
    allocation = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if head := re.match(r"allocation (\d+):", line):
            allocation = int(head[1])
        elif found := _VALUE.match(line):
            name, phi, size, offset, shape = found.groups()
            places.setdefault((int(size), allocation, int(offset)), []).append((phi is not None, name, shape))
    scopes = _scopes(path.with_name(path.name.replace(_ASSIGNMENT, _PROGRAM)))
    largest = []
    for (size, *_), values in sorted(places.items(), reverse=True)[:count]:
        # A result that a loop only hands on says less than one that is computed.
        _, name, shape = min(values, key=lambda value: value[0])
        largest.append(Buffer(size, shape, name, scopes.get(name, ""), len(values)))
    return largest


def _scopes(path: Path) -> dict[str, str]:
    """Returns the scope of each instruction of a program, by its name."""
    if not path.exists():
        return {}
    named = {}
    for one in hlo.instructions(path.read_text(encoding="utf-8")):
        named.setdefault(one.line.removeprefix("ROOT ").split(" = ")[0].lstrip("%"), one.scope.replace("\\'", "'"))
    return named
