"""A compiled program's text: its computations, how often each runs, and what they move between devices."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nft_jax.parallel import scopes

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8}

_CALLED = re.compile(r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line, and what it is part of.

    `times`  how often it runs for each trip of the loops around it whose number of trips isn't known
    `scope`  the path of function names and scopes that it comes from, or else what calls it
    `within` the name of the computation    `looped`  whether a `while` runs it
    """

    line: str
    times: int
    scope: str
    within: str
    looped: bool


class Collective(NamedTuple):
    """A transfer between devices.

    `kind`  one of `COLLECTIVES`       `bytes`  that one device has of it in the end, each of `times`
    `axes`  of the mesh, along which the devices lie that take part, and how many do (`devices`)
    `scope` and `times` as of its instruction
    """

    kind: str
    bytes: int
    times: int
    axes: frozenset[str]
    devices: int
    scope: str

    @property
    def sent(self) -> float:
        """Bytes that a device sends, all times together, where devices pass them round a ring."""
        share = (self.devices - 1) / self.devices
        whole = self.bytes * (self.devices if self.kind == "reduce-scatter" else 1)
        return self.times * whole * share * (2 if self.kind == "all-reduce" else 1)


def computations(text: str) -> dict[str, list[str]]:
    """The instructions of each computation, by its name."""
    found, lines = {}, []
    # Long tuples are numbered in comments, whose equals signs would be taken for the instruction's.
    for line in re.sub(r"/\*index=\d+\*/", "", text).splitlines():
        if (head := re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line)) is not None:
            lines = found[head[1]] = []
        elif line.startswith("  "):
            lines.append(line.strip())
    return found


def inside_loops(text: str) -> Iterator[str]:
    """The instructions of all computations that a `while` runs, fusions and calls included."""
    return (one.line for one in instructions(text) if one.looped)


def instructions(text: str) -> Iterator[Instruction]:
    """All that runs, from the entry on; what is called in two places comes twice."""
    parts = computations(text)
    waiting = [(re.search(r"^ENTRY %([\w.\-]+) ", text, re.MULTILINE)[1], 1, "", False)]
    while waiting:
        name, times, outer, looped = waiting.pop()
        for line in parts[name]:
            named = re.search(r'op_name="([^"]*)"', line)
            scope = named[1] if named else outer
            yield Instruction(line, times, scope, name, looped)
            loops = operation(line) == "while"
            inner = times * (_trips(line, parts) if loops else 1), scope, looped or loops
            waiting += [(called, *inner) for called in _called(line)]


def collectives(text: str, mesh_shape: dict[str, int]) -> list[Collective]:
    """The transfers of a program over a mesh, whose partition i is the i-th device of the mesh."""
    found, seen = [], set()
    for instruction in instructions(text):
        channel = re.search(r"channel_id=(\d+)", instruction.line)
        if channel and (channel[1], instruction.times) in seen:
            # TPUs run one transfer as a chain of fusions, each of which says it again.
            continue
        kind = operation(instruction.line).removesuffix("-start")
        if between := _BETWEEN_SLICES.search(instruction.line) if kind == "send" else None:
            # The runtime passes it from slice to slice, along the first axis of the mesh.
            axis, devices = next(iter(mesh_shape.items()))
            kind = between[1].lower().replace("_", "-").replace("one-to-one", "collective-permute")
            of = kind, _sizes(instruction.line)[0], instruction.times, frozenset({axis}), devices
            found.append(Collective(*of, instruction.scope))
            continue
        if kind not in COLLECTIVES:
            continue
        if channel:
            seen.add((channel[1], instruction.times))
        groups, moved = _groups(instruction.line, mesh_shape), result_bytes(instruction.line)
        if "all-reduce-scatter" in instruction.within:
            # TPUs have it as a fusion of a sum and of the taking of a part.
            kind, moved = "reduce-scatter", moved // len(groups[0])
        axes = frozenset(axis for group in groups for axis in _axes(group, mesh_shape))
        found.append(Collective(kind, moved, instruction.times, axes, len(groups[0]), instruction.scope))
    return found


def of_phase(transfers: Iterable[Collective], phase: str) -> list[Collective]:
    """Those of a phase of the program (`nft_jax.parallel.scopes`)."""
    return [one for one in transfers if scopes.is_within(phase, one.scope)]


def size(line: str) -> int:
    """Elements of the first array that an instruction gives."""
    shape = re.search(r"= \(?\w+\[([\d,]*)\]", line)
    return _elements(shape[1]) if shape else 1


def result_bytes(line: str) -> int:
    """Bytes of what an instruction gives: all of a tuple, but of an asynchronous one, which repeats its operand."""
    sizes = _sizes(line)
    return max(sizes, default=0) if operation(line).endswith("-start") else sum(sizes)


def operation(line: str) -> str:
    """The name of what an instruction does."""
    found = re.search(r"= (?:\([^=]*\)|\S+) ([a-z\-]+)\(", line)
    return found[1] if found else ""


def _sizes(line):
    """Bytes of each array that an instruction gives."""
    result = line[: line.index(f"{operation(line)}(")]
    return [BYTES[kind] * _elements(extents) for kind, extents in _ARRAY.findall(result) if kind in BYTES]


def _trips(line, parts):
    """How often a loop's body runs, where that is a number of the program: 1 where it isn't."""
    if said := _TRIPS.search(line):
        return int(said[1])
    # Not all compilers say it. A `scan` counts from 0 while its count is less than a constant.
    condition = parts[re.search(r"condition=%([\w.\-]+)", line)[1]]
    compared = re.search(r"compare\(%([\w.\-]+), %([\w.\-]+)\), direction=LT", condition[-1])
    written = {one.removeprefix("ROOT ").split(" = ")[0].lstrip("%"): one for one in condition}
    if compared is None or "get-tuple-element(" not in written[compared[1]]:
        return 1
    limit = re.search(r" constant\((\d+)\)", written[compared[2]])
    return int(limit[1]) if limit else 1


def _called(line):
    branches = [part for group in _BRANCHES.findall(line) for part in re.findall(r"%([\w.\-]+)", group)]
    return _CALLED.findall(line) + branches


def _elements(extents):
    return math.prod(int(extent) for extent in extents.split(",") if extent)


def _axes(group, mesh_shape):
    """The mesh axes along which the devices of a group differ."""
    places = np.array(np.unravel_index(np.asarray(group), tuple(mesh_shape.values())))
    return [name for name, place in zip(mesh_shape, places, strict=True) if len(set(place.tolist())) > 1]


def _groups(line, mesh_shape):
    """The devices of the first group, by their number, which stands for all; or all pairs of a permutation."""
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{}]+\})\}", line):
        return [_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
    return [_group(line, mesh_shape)]


def _group(line, mesh_shape):
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return _numbers(listed[1])
    if iota := re.search(rf"replica_groups=\[([\d,]+)\]<={_IOTA}", line):
        return _iota(*iota.groups()[1:]).reshape(_numbers(iota[1]))[0].tolist()
    if named := re.search(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_IOTA}\))? \{{([^}}]*)\}}", line):
        return _along(*named.groups())
    return list(range(math.prod(mesh_shape.values())))


def _along(axes, source, order, taken):
    """Of a mesh such as 'a'=2,'b'=4, the devices along the axes taken, such as 'a','b':(1)2 (a part of b), from 0."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    whole = _iota(source or str(math.prod(sizes.values())), order).reshape(tuple(sizes.values()))
    for place, (name, size) in enumerate(sizes.items()):
        part = re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", taken)
        before, extent = (1, 1) if part is None else (1, size) if part[1] is None else _numbers(f"{part[1]},{part[2]}")
        stride = size // (before * extent)
        whole = whole.take(range(0, extent * stride, stride), axis=place)
    return whole.ravel().tolist()


def _iota(source, order):
    """0, 1, 2, … in an array of this shape, transposed."""
    shape = _numbers(source)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text):
    return [int(part) for part in text.split(",") if part]
