"""A compiled program's text: its computations, and what runs inside its loops."""

import re
from collections.abc import Iterator


def computations(text: str) -> dict[str, list[str]]:
    """The instructions of each computation, by its name."""
    found, lines = {}, []
    for line in text.splitlines():
        if (head := re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line)) is not None:
            lines = found[head[1]] = []
        elif line.startswith("  "):
            lines.append(line.strip())
    return found


def inside_loops(text: str) -> Iterator[str]:
    """The instructions of all computations that a `while` runs, fusions and calls included."""
    parts = computations(text)
    waiting = [
        name
        for lines in parts.values()
        for line in lines
        for name in re.findall(r"(?:body|condition)=%([\w.\-]+)", line)
    ]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in parts[name]:
            yield line
            waiting += re.findall(
                r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)", line
            )
            waiting += [
                part
                for group in re.findall(r"branch_computations=\{([^}]*)\}", line)
                for part in re.findall(r"%([\w.\-]+)", group)
            ]


def size(line: str) -> int:
    """Elements of the first array that an instruction gives."""
    shape = re.search(r"= \(?\w+\[([\d,]*)\]", line)
    elements = 1
    for extent in shape[1].split(",") if shape and shape[1] else ():
        elements *= int(extent)
    return elements


def operation(line: str) -> str:
    """The name of what an instruction does."""
    found = re.search(r"= (?:\([^=]*\)|\S+) ([a-z\-]+)\(", line)
    return found[1] if found else ""
