"""Read a compiled program's text: messages between devices, and bytes to and from their memory.

The compilers' own "bytes accessed" count a loop as one iteration, and include arrays that the TPU compiler puts into
VMEM on the chip, which have `S(1)` in their layout. So this module counts by itself.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_DTYPE_BITS = {"pred": 8, "bf16": 16}
_CALLS = {"call", "call-start"}
_NO_MEMORY = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"} | _CALLS
_SLICES = {"slice", "dynamic-slice"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"([a-z]+\d*)\w*\[([\d,]*)\](\{[^}]*S\([1-9])?")


@dataclass(frozen=True)
class Messages:
    """All messages of one kind in a step."""

    count: int
    sent: float
    """Bytes that each device sends in a ring: (n - 1) / n of the complete array, and twice that for an all-reduce."""


@dataclass(frozen=True)
class _Instruction:
    name: str
    kind: str
    arrays: list[float]  # bytes of each array of its result
    stored: float  # bytes of the arrays in the memory next to the chip
    rest: str  # operands and attributes

    @cached_property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])

    @property
    def size(self) -> float:
        return sum(self.arrays)

    def called(self, attribute: str) -> str:
        """The computation that an attribute names."""
        return re.findall(rf"{attribute}=%?([\w.\-]+)", self.rest)[0]


class Program:
    """The parsed text of a compiled program (`compiled.as_text()`)."""

    def __init__(self, text: str):
        self._computations: dict[str, list[_Instruction]] = {}
        for line in text.splitlines():
            if start := _COMPUTATION.match(line):
                current = self._computations.setdefault(start[2], [])
                if start[1]:
                    self._entry = start[2]
            elif found := _INSTRUCTION.match(line):
                name, result, kind, rest = found.groups()
                arrays = [(_bytes(dtype, shape), on_chip) for dtype, shape, on_chip in _ARRAY.findall(result)]
                stored = sum(size for size, on_chip in arrays if not on_chip)
                current.append(_Instruction(name, kind, [size for size, _ in arrays], stored, rest))

    def messages(self) -> dict[str, Messages]:
        """Return messages by kind; a message in a loop counts as often as it is sent."""
        found: dict[str, Messages] = {}
        for times, _, instruction in self._executed(self._entry):
            kind = instruction.kind.removesuffix("-start")
            if kind in KINDS:
                before = found.get(kind, Messages(0, 0.0))
                found[kind] = Messages(before.count + times, before.sent + times * _sent(kind, instruction))
        return found

    def traffic(self) -> float:
        """Return bytes between chip and memory: operands and results of all executed instructions, each time they run.

        Data that stays on the chip, in a fusion or in VMEM, is not counted; a copy into or out of VMEM counts once. Of
        a conditional's branches, the one that moves least counts, as in a lower bound.
        """
        return self._traffic(self._entry)

    def _traffic(self, computation: str) -> float:
        return sum(
            times * self._moved(instruction, stored)
            for times, stored, instruction in self._executed(computation)
            if instruction.kind not in _NO_MEMORY and not instruction.kind.endswith("-done")
        )

    def _moved(self, instruction: _Instruction, stored: dict[str, float]) -> float:
        """Return bytes of operands and results in memory; a slice or an update in place counts only its part."""
        kind = instruction.kind.removesuffix("-start")
        read = [stored.get(operand, 0.0) for operand in instruction.operands]
        wrote = instruction.stored
        if kind != instruction.kind and kind != "all-reduce":
            wrote -= sum(read)  # the result of a start instruction includes the operands
        if kind == "custom-call" and "__cu" in instruction.rest:
            wrote -= instruction.arrays[-1]  # workspace of cuBLAS or cuDNN
        if kind in _SLICES and read[0]:
            read = [instruction.arrays[kind != instruction.kind]]
        elif kind == "fusion":
            inside = self._computations[instruction.called("calls")]
            read = [size and self._read(inside, number) for number, size in enumerate(read)]
            if wrote:
                by_name = {one.name: one for one in inside}
                updates = [one for one in inside if one.kind == "dynamic-update-slice"]
                wrote -= sum(update.size - by_name[update.operands[1]].size for update in updates)
        return sum(read) + wrote

    def _read(self, inside: list[_Instruction], number: int) -> float:
        """Return the bytes that a fusion reads of a parameter; of one that is only sliced, the slices."""
        parameter = next(one for one in inside if one.kind == "parameter" and one.rest.startswith(f"{number})"))
        read = 0.0
        for user in inside:
            for place, operand in enumerate(user.operands):
                if operand != parameter.name or (user.kind == "dynamic-update-slice" and place == 0):
                    continue
                if user.kind == "fusion":
                    read += self._read(self._computations[user.called("calls")], place)
                else:
                    read += user.size if user.kind in _SLICES else parameter.size
        return min(read, parameter.size)

    def _executed(self, computation: str) -> Iterator[tuple[int, dict[str, float], _Instruction]]:
        """Yield (count, bytes in memory of its computation's results, instruction), except for the insides of
        fusions."""
        waiting = [(1, computation)]
        while waiting:
            times, name = waiting.pop()
            stored = {instruction.name: instruction.stored for instruction in self._computations[name]}
            for instruction in self._computations[name]:
                yield times, stored, instruction
                if instruction.kind == "while":
                    waiting.append((times * self._turns(instruction), instruction.called("body")))
                elif instruction.kind == "conditional":
                    named = re.findall(r"%([\w.\-]+)", instruction.rest.partition("_computation")[2])
                    branches = [name for name in named if name in self._computations]
                    waiting.append((times, min(branches, key=self._traffic)))
                elif instruction.kind in _CALLS:
                    waiting.append((times, instruction.called("to_apply")))

    def _turns(self, loop: _Instruction) -> int:
        """Return the iterations of a counted loop, which the compiler notes, or whose condition compares with a
        constant; of any other loop, 1."""
        if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(noted[1])
        inside = self._computations[loop.called("condition")]
        constants = {one.name: int(one.rest.split(")")[0]) for one in inside if one.kind == "constant"}
        compared = [name for one in inside if one.kind in ("compare", "fusion") for name in one.operands]
        return max((constants[name] for name in compared if name in constants), default=1)


def _sent(kind: str, instruction: _Instruction) -> float:
    arrays = [size for size in instruction.arrays if size > 4]
    if instruction.kind.endswith("-start") and kind != "all-reduce":
        arrays = arrays[len(arrays) // 2 :]  # the first half are its operands
    groups = re.search(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])", instruction.rest)
    devices = 2 if groups is None else len(groups[1].split(",")) if groups[1] else int(groups[2])
    total = sum(arrays) * (devices if kind == "reduce-scatter" else 1)
    if kind == "collective-permute":
        return total
    return total * (devices - 1) / devices * (2 if kind == "all-reduce" else 1)


def _bytes(dtype: str, shape: str) -> float:
    bits = _DTYPE_BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
    return math.prod(int(side) for side in shape.split(",") if side) * bits / 8
