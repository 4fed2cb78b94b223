"""Reads a compiled program's text: its computations, how often each runs, and its transfers between devices."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nft_jax.parallel import scopes

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# They name memory, steer the program, or wait.
NO_KERNEL = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional", "call")
NO_KERNEL += ("after-all", "partition-id", "replica-id", "opt-barrier")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8}

_CALLED = re.compile(r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of the program.

    Attributes:
      times: how often it runs; loops with an unknown number of trips count once.
      scope: path of the function names and scopes that it comes from, or that of its caller.
      within: name of its computation.
      looped: whether a `while` runs it.
      fused: whether it is a part of another instruction, such as a fusion or a reduction.
    """

    line: str
    times: int
    scope: str
    within: str
    looped: bool
    fused: bool


class Collective(NamedTuple):
    """A transfer between devices.

    Attributes:
      kind: one of `COLLECTIVES`.
      bytes: bytes of the result on one device, each time.
      axes: axes of the mesh along which its devices differ.
      devices: number of devices that take part.
      times, scope: as in `Instruction`.
    """

    kind: str
    bytes: int
    times: int
    axes: frozenset[str]
    devices: int
    scope: str

    @property
    def sent(self) -> float:
        """Bytes that a device sends in all, if the devices form a ring."""
        share = (self.devices - 1) / self.devices
        whole = self.bytes * (self.devices if self.kind == "reduce-scatter" else 1)
        return self.times * whole * share * (2 if self.kind == "all-reduce" else 1)


def computations(text: str) -> dict[str, list[str]]:
    """Returns the instructions of each computation, by its name."""
    bodies, lines = {}, []
    # Removes comments that number the elements of long tuples; their equals signs look like the instruction's.
    for line in re.sub(r"/\*index=\d+\*/", "", text).splitlines():
        if (head := re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line)) is not None:
            lines = bodies[head[1]] = []
        elif line.startswith("  "):
            lines.append(line.strip())
    return bodies


def loop_instructions(text: str) -> Iterator[str]:
    """Yields the instructions that a `while` runs, those of fusions and calls included."""
    return (one.line for one in instructions(text) if one.looped)


def instructions(text: str) -> Iterator[Instruction]:
    """Yields all instructions that run, from the entry on; twice if two places call them."""
    parts = computations(text)
    waiting = [(re.search(r"^ENTRY %([\w.\-]+) ", text, re.MULTILINE)[1], 1, "", False, False)]
    while waiting:
        name, times, outer, looped, fused = waiting.pop()
        for line in parts[name]:
            named = re.search(r'op_name="([^"]*)"', line)
            scope = named[1] if named else outer
            yield Instruction(line, times, scope, name, looped, fused)
            loops, part = operation(line) == "while", fused or operation(line) not in ("while", "conditional", "call")
            inner = times * (_trips(line, parts) if loops else 1), scope, looped or loops, part
            waiting += [(called, *inner) for called in _called(line)]


def count_launches(text: str, phase: str) -> int:
    """Counts the kernels that one pass through a phase of a loop starts, such as the decoding of one token.

    An instruction that is no part of another one starts a kernel. One that a compiler adds has no scope of its own; it
    counts if instructions of the phase are beside it.
    """
    running = [one for one in instructions(text) if one.looped and not one.fused]
    bodies = {one.within for one in running if scopes.is_within(phase, one.scope)}
    beside = [(one.times, operation(one.line)) for one in running if one.within in bodies]
    return sum(times for times, name in beside if name not in NO_KERNEL and not name.endswith("-done"))


def collectives(text: str, mesh_shape: dict[str, int]) -> list[Collective]:
    """Returns the transfers of a program over a mesh whose i-th device runs partition i."""
    transfers, channels = [], set()
    for instruction in instructions(text):
        channel = re.search(r"channel_id=(\d+)", instruction.line)
        if channel and (channel[1], instruction.times) in channels:
            # TPUs run one transfer as a chain of fusions, each of which names it.
            continue
        kind = operation(instruction.line).removesuffix("-start")
        if between := _BETWEEN_SLICES.search(instruction.line) if kind == "send" else None:
            # The runtime moves it between slices, along the first axis of the mesh.
            axis, devices = next(iter(mesh_shape.items()))
            kind = between[1].lower().replace("_", "-").replace("one-to-one", "collective-permute")
            size = _sizes(instruction.line)[0]
            transfers.append(Collective(kind, size, instruction.times, frozenset({axis}), devices, instruction.scope))
            continue
        if kind not in COLLECTIVES:
            continue
        if channel:
            channels.add((channel[1], instruction.times))
        groups, size = _groups(instruction.line, mesh_shape), result_bytes(instruction.line)
        if "all-reduce-scatter" in instruction.within:
            # TPUs fuse a sum and a slice into it.
            kind, size = "reduce-scatter", size // len(groups[0])
        axes = frozenset(axis for group in groups for axis in _axes(group, mesh_shape))
        transfers.append(Collective(kind, size, instruction.times, axes, len(groups[0]), instruction.scope))
    return transfers


def select_phase(transfers: Iterable[Collective], phase: str) -> list[Collective]:
    """Returns the transfers of a phase of the program (`nft_jax.parallel.scopes`)."""
    return [one for one in transfers if scopes.is_within(phase, one.scope)]


def element_count(line: str) -> int:
    """Counts the elements of the first array of an instruction's result."""
    shape = re.search(r"= \(?\w+\[([\d,]*)\]", line)
    return _elements(shape[1]) if shape else 1


def result_bytes(line: str) -> int:
    """Counts the bytes of an instruction's result; of an asynchronous one, its largest array."""
    sizes = _sizes(line)
    return max(sizes, default=0) if operation(line).endswith("-start") else sum(sizes)


def operation(line: str) -> str:
    """Returns the name of an instruction's operation, or ""."""
    name = re.search(r"= (?:\([^=]*\)|\S+) ([a-z\-]+)\(", line)
    return name[1] if name else ""


def _sizes(line):
    """Counts the bytes of each array of an instruction's result."""
    result = line[: line.index(f"{operation(line)}(")]
    return [BYTES[kind] * _elements(extents) for kind, extents in _ARRAY.findall(result) if kind in BYTES]


def _trips(line, parts):
    """Returns how often a loop's body runs if the program states it, else 1."""
    if known := _TRIPS.search(line):
        return int(known[1])
    # Not all compilers state it. A `scan` counts from 0 while its count is less than a constant.
    condition = parts[re.search(r"condition=%([\w.\-]+)", line)[1]]
    comparison = re.search(r"compare\(%([\w.\-]+), %([\w.\-]+)\), direction=LT", condition[-1])
    definitions = {one.removeprefix("ROOT ").split(" = ")[0].lstrip("%"): one for one in condition}
    if comparison is None or "get-tuple-element(" not in definitions[comparison[1]]:
        return 1
    limit = re.search(r" constant\((\d+)\)", definitions[comparison[2]])
    return int(limit[1]) if limit else 1


def _called(line):
    branches = [part for group in _BRANCHES.findall(line) for part in re.findall(r"%([\w.\-]+)", group)]
    return _CALLED.findall(line) + branches


def _elements(extents):
    return math.prod(int(extent) for extent in extents.split(",") if extent)


def _axes(group, mesh_shape):
    """Returns the mesh axes along which the devices of a group differ."""
    places = np.array(np.unravel_index(np.asarray(group), tuple(mesh_shape.values())))
    return [name for name, place in zip(mesh_shape, places, strict=True) if len(set(place.tolist())) > 1]


def _groups(line, mesh_shape):
    """Returns the device numbers of the first group, which stands for all; or all pairs of a permutation."""
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


def _along(axes, source, order, selection):
    """Returns the devices of a mesh such as 'a'=2,'b'=4 along the axes of a selection such as 'a','b':(1)2, from 0."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    whole = _iota(source or str(math.prod(sizes.values())), order).reshape(tuple(sizes.values()))
    for place, (name, size) in enumerate(sizes.items()):
        part = re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", selection)
        before, extent = (1, 1) if part is None else (1, size) if part[1] is None else _numbers(f"{part[1]},{part[2]}")
        stride = size // (before * extent)
        whole = whole.take(range(0, extent * stride, stride), axis=place)
    return whole.ravel().tolist()


def _iota(source, order):
    """Returns 0, 1, 2, … as an array of this shape, transposed."""
    shape = _numbers(source)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text):
    return [int(part) for part in text.split(",") if part]
